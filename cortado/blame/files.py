"""Files: blame for a file in integers against the file in floats that it was made from."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cortado.blame.blame import Blame, blame, is_far
from cortado.blame.openvino_pair import blame_models
from cortado.errors import BadNetwork, BadValue
from cortado.layers.roles import MATMUL
from cortado.lowering.fold import fold_norms
from cortado.nets.from_onnx.network import load_onnx, onnx_example
from cortado.network.graph.flow import flow_of
from cortado.network.graph.trace import trace

RANDOM = "The samples are random numbers: pass --samples for the order on real data."
OTHERS = {
    ".tflite": "LiteRT's interpreter runs a file as a whole and gives no layer back in floats",
    ".pte": "ExecuTorch runs a file as a whole and gives no layer back in floats",
    ".pt2": "it holds a program of torch, not a file of a runtime",
}
"""Why a pair of files cannot be judged."""
RANDOM_SAMPLES = 4


def blame_files(file: str | Path, original: str | Path, samples: Any = None, wanted: float | None = None) -> Blame:
    """Return the layers of a file in integers in the order of what they cost, against its original in floats.

    Both are .onnx files or both .xml files of OpenVINO. `samples` are inputs, samples first; None for random numbers.
    Raises BadValue for files that cannot be judged, BadNetwork for files of different networks.
    """
    kinds = Path(file).suffix, Path(original).suffix
    for kind in kinds:
        if kind in OTHERS:
            raise BadValue(
                f"blame: a {kind} file cannot be judged: {OTHERS[kind]}. Export the same network to ONNX Runtime or OpenVINO, "
                "whose layers are rounded alike, and judge that."
            )
    if kinds == (".onnx", ".onnx"):
        return blame_onnx(Path(file), Path(original), samples, wanted)
    if kinds == (".xml", ".xml"):
        return blame_models(Path(file), Path(original), samples, wanted)
    raise BadValue(
        f"blame: {file} and {original} are not two .onnx files or two .xml files. Pass the file in integers, then the original."
    )


def blame_onnx(file: Path, original: Path, samples: Any, wanted: float | None) -> Blame:
    """Return the blame for two .onnx files."""
    given = onnx_example(original, batch=RANDOM_SAMPLES) if samples is None else samples
    before, after = (folded(load_onnx(one), first_sample_of(given)) for one in (original, file))
    pairs = corresponding(before, after, first_sample_of(given), file, original)
    found = blame(before, after, given, wanted, pairs, clips=True)
    return found if samples is not None else replace(found, note=RANDOM)


def first_sample_of(samples: Any) -> Any:
    """Return the first sample."""
    return tuple(one[:1] for one in samples) if isinstance(samples, tuple) else samples[:1]


def folded(network: nn.Module, example: Any) -> nn.Module:
    """Return a copy with its batch norms folded, as tools do before they round."""
    made = copy.deepcopy(network)
    fold_norms(made, example)
    return made


def products_of_network(network: nn.Module, example: Any) -> list[str]:
    """Return the layers with weights in the order in which they run."""
    steps = flow_of(trace(network, example)).steps
    return list(dict.fromkeys(step.path for step in steps if step.kind == MATMUL and step.path))


def corresponding(original: nn.Module, rounded: nn.Module, example: Any, file: Path, source: Path) -> dict[str, Tensor]:
    """Return the original's weight of each layer of a rounded network: the layer of that name, or of that place.

    Raises BadNetwork where the two are not the same network.
    """
    first, second = (products_of_network(one, example) for one in (original, rounded))
    if not set(second) <= set(first) and len(first) != len(second):
        raise BadNetwork(
            f"blame: {file} has {len(second)} layers with weights and {source} has {len(first)}: they are not the same network. "
            "Pass the file that it was quantized from."
        )
    named = second if set(second) <= set(first) else first
    found = dict[str, Tensor]()
    for path, other in zip(second, named, strict=True):
        here: Any = rounded.get_submodule(path)
        there: Any = original.get_submodule(other)
        weight = with_channels(there.weight.detach(), here.weight.shape)
        if here.weight.shape != weight.shape or is_far(weight, here.weight.detach()):
            raise BadNetwork(
                f"blame: the layer {path} of {file} was not made from {other} of {source}: its weights are others. "
                "Pass the file that it was quantized from."
            )
        found[path] = weight.clone()
    return found


def with_channels(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a weight with as many input channels as in a shape: files in integers may have some of zeros."""
    more = shape[1] - weight.shape[1] if len(shape) == weight.dim() else 0
    return torch.cat([weight, weight.new_zeros(weight.shape[0], more, *weight.shape[2:])], 1) if more > 0 else weight


def read_samples(path: str | Path) -> Tensor | tuple[Tensor, ...]:
    """Return the inputs in a .npy file, or those in a .npz file in its order, samples first.  Raises BadValue."""
    try:
        read: Any = np.load(path, allow_pickle=False)
        arrays: Sequence[Any] = [read[name] for name in read.files] if is_archive(read) else [read]
    except (OSError, ValueError) as error:
        raise BadValue(
            f"blame: {path} cannot be read as .npy or .npz ({error}). Write it with numpy.save(path, inputs)."
        ) from error
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(one)) for one in arrays)
    return tensors[0] if len(tensors) == 1 else tensors


def is_archive(read: Any) -> bool:
    """Return whether NumPy read several arrays."""
    return isinstance(read, np.lib.npyio.NpzFile)
