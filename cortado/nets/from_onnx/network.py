"""Network: an .onnx file as a network of torch layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue
from cortado.nets.from_onnx.build import Builder, Shapes
from cortado.nets.from_onnx.fused import fuse
from cortado.nets.from_onnx.reading import OnnxFile, read_onnx

ShapesGiven = Mapping[str, Sequence[int]]


def load_onnx(path: str | Path, shapes: ShapesGiven | None = None) -> nn.Module:
    """Return the network of an .onnx file (opsets 9 to 21), in eval mode.

    >>> net = cortado.load_onnx("net.onnx")

    Convolutions, linear layers, norms, embeddings and activation functions are torch's layers, under the names of the file's
    nodes; other operators are modules of torch's functions. The first axis of the inputs is the batch and is open, also
    where the file fixes it. `shapes` gives the sizes of inputs with other open axes, batch first: {"image": (1, 3, 224,
    224)}. A quantize and a dequantize operator of one grid become an activation quantizer. Raises MissingPackage, BadFile,
    BadValue for shapes that are missing or do not fit, and BadNetwork with the name of an operator that is not read.
    """
    file = fuse(read_onnx(path))
    known, batch = input_shapes_of(file, shapes or {})
    return Builder(file, known, batch).build()


def onnx_example(path: str | Path, shapes: ShapesGiven | None = None, batch: int = 1) -> Tensor | tuple[Tensor, ...]:
    """Return random inputs for the network of an .onnx file, with `batch` samples; whole numbers are 0 and 1."""
    file = read_onnx(path)
    known, _ = input_shapes_of(file, shapes or {})
    generator, found = torch.Generator().manual_seed(0), []
    for one in file.inputs:
        shape = (batch, *known[one.name][1:])
        values = (
            torch.randn(shape, generator=generator)
            if one.dtype.is_floating_point
            else torch.randint(2, shape, generator=generator)
        )
        found.append(values.to(one.dtype))
    return found[0] if len(found) == 1 else tuple(found)


def input_shapes_of(file: OnnxFile, given: ShapesGiven) -> tuple[Shapes, int | None]:
    """Return the shape of each input, batch first, and the batch that the file fixes, None for an open one."""
    unknown = set(given) - {one.name for one in file.inputs}
    if unknown:
        raise BadValue(
            f"onnx: {file.path} has no input {min(unknown)!r}. It has: {', '.join(one.name for one in file.inputs)}."
        )
    shapes, fixed = dict[str, tuple[int, ...]](), set[int]()
    for one in file.inputs:
        own = tuple(given.get(one.name, one.shape))
        if not own:
            raise BadNetwork(
                f"onnx: {file.path}: the input {one.name} has no batch axis. Give it one and export again."
            )
        still_open = [axis for axis, size in enumerate(own) if axis and not isinstance(size, int)]
        if still_open or len(own) != len(one.shape):
            raise BadValue(
                f"onnx: {file.path}: the input {one.name} has open axes besides the batch, its shape is {one.shape}. "
                f"Give all sizes: shapes={{{one.name!r}: (1, ...)}}."
            )
        if isinstance(one.shape[0], int):
            fixed.add(one.shape[0])
        shapes[one.name] = (1, *(int(size) for size in own[1:] if size is not None))
    if len(fixed) > 1:
        raise BadNetwork(
            f"onnx: {file.path}: its inputs have different first axes, {sorted(fixed)}. Export it with one batch axis."
        )
    return shapes, fixed.pop() if fixed else None
