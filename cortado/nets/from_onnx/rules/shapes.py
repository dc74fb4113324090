"""Shapes: operators that move, repeat, join and split entries, and those that make constants of shapes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cortado.nets.from_onnx.node import BATCHES, Made, Node, Rule


def entries(node: Node, wanted: Sequence[Sequence[int]]) -> list[int]:
    """Return the sizes of a new shape, given for each batch: -1 for the one that depends on the batch."""
    found = [one if one == other else -1 for one, other in zip(wanted[0], wanted[-1], strict=True)]
    if found.count(-1) > 1:
        raise node.refuse(
            "has more than one axis that depends on the batch",
            "Export the network for one batch size, or reshape in steps.",
        )
    return found


def requested(node: Node, place: int) -> list[list[int]]:
    """Return the sizes that a shape input asks for, for each batch.  A fixed batch at its head is opened."""
    value = node.value(place)
    if not value.static:
        raise node.refuse("takes its sizes from the data", "Export the network with constant sizes.")
    return [[int(one) for one in held.reshape(-1)] for held in value.held]


def new_shape(wanted: list[int], shape: Sequence[int], zeros: bool) -> list[int]:
    """Return a requested shape with 0 (as before) and -1 (the rest) filled in."""
    made = [shape[place] if size == 0 and not zeros else size for place, size in enumerate(wanted)]
    if -1 in made:
        known = 1
        for size in made:
            known *= size if size != -1 else 1
        total = 1
        for size in shape:
            total *= size
        made[made.index(-1)] = total // max(1, known)
    return made


def opened_batch(node: Node, wanted: list[int], shapes: Sequence[Sequence[int]], number: int) -> list[int]:
    """Return a requested shape in which a file's fixed batch at the head stands for the batch that runs."""
    depends = shapes[0] != shapes[-1]
    if node.batch is not None and depends and wanted and wanted[0] == node.batch:
        return [BATCHES[number] if len(shapes) > 1 else shapes[0][0], *wanted[1:]]
    return wanted


def reshape(node: Node) -> Made:
    """Return a reshape to constant sizes, the batch left open."""
    shapes, zeros = node.value(0).shapes(), bool(node.attribute("allowzero", 0))
    wanted = requested(node, 1) if node.has(1) else [[int(one) for one in node.attribute("shape")]] * len(shapes)
    wanted = [opened_batch(node, list(one), shapes, number) for number, one in enumerate(wanted)]
    made = [new_shape(one, shape, zeros) for one, shape in zip(wanted, shapes, strict=True)]
    return node.applied(torch.reshape, [node.value(0)], shape=entries(node, made))


def flatten(node: Node) -> Made:
    """Return a matrix of the axes before and after one."""
    axis, made = node.axis(1), []
    for shape in node.value(0).shapes():
        first, second = 1, 1
        for place, size in enumerate(shape):
            first, second = (first * size, second) if place < axis else (first, second * size)
        made.append([first, second])
    if axis == 1 and len(node.shape()) > 1:
        return node.applied(torch.flatten, [node.value(0)], start_dim=1)
    return node.applied(torch.reshape, [node.value(0)], shape=entries(node, made))


def transpose(node: Node) -> Made:
    order = node.attribute("perm", list(reversed(range(node.rank()))))
    return node.applied(torch.permute, [node.value(0)], dims=[int(one) for one in order])


def squeeze(node: Node) -> Made:
    shape = node.value(0).shapes()[-1]
    axes = node.listed("axes", 1) or [place for place, size in enumerate(shape) if size == 1]
    return node.applied(torch.squeeze, [node.value(0)], dim=tuple(axis % len(shape) for axis in axes))


def unsqueezed(values: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        values = values.unsqueeze(axis)
    return values


def unsqueeze(node: Node) -> Made:
    axes = node.listed("axes", 1) or []
    total = node.rank() + len(axes)
    return node.applied(unsqueezed, [node.value(0)], axes=sorted(axis % total for axis in axes))


def expand(node: Node) -> Made:
    """Return a broadcast to constant sizes; an axis as long as before stays as it is."""
    shapes, wanted, made = node.value(0).shapes(), requested(node, 1), []
    for shape, sizes in zip(shapes, wanted, strict=True):
        grown = [1] * (len(sizes) - len(shape)) + list(shape)
        sizes = [1] * (len(grown) - len(sizes)) + list(sizes)
        made.append([-1 if size in (1, before) else size for before, size in zip(grown, sizes, strict=True)])
    if made[0] != made[-1]:
        raise node.refuse("repeats data over the batch", "Let the network broadcast instead.")
    extra = len(made[0]) - len(shapes[0])
    sizes = [1 if size == -1 and place < extra else size for place, size in enumerate(made[0])]
    return node.applied(torch.Tensor.expand, [node.value(0)], size=sizes)


def expanded_values(values: Tensor, size: Sequence[int]) -> Tensor:
    return values.expand(size)


def tile(node: Node) -> Made:
    times = requested(node, 1)
    if times[0] != times[-1]:
        raise node.refuse("repeats data over the batch", "Let the network broadcast instead.")
    return node.applied(torch.tile, [node.value(0)], dims=times[0])


def joined_values(*values: Tensor, dim: int) -> Tensor:
    return torch.cat(values, dim)


def concat(node: Node) -> Made:
    axis, given = node.axis(), [node.value(place) for place in range(len(node.inputs))]
    return node.applied(joined_values, given, dim=axis)


def split(node: Node) -> Made:
    """Return the parts of an axis: of given sizes, or of equal ones."""
    axis, parts = node.axis(), len(node.given.outputs)
    sizes, length = node.listed("split", 1), node.shape()[axis]
    if sizes is None:
        count = int(node.attribute("num_outputs", parts))
        even = -(-length // count)
        sizes = [min(even, length - even * place) for place in range(count)]
    return node.applied(torch.split, [node.value(0)], split_size_or_sections=sizes, dim=axis)


def padded_values(values: Tensor, pad: Sequence[int], mode: str, value: float) -> Tensor:
    return torch.nn.functional.pad(values, list(pad), mode, value if mode == "constant" else None)


def pad(node: Node) -> Made:
    """Return padding before and after some axes with a number, or with what is there."""
    given, rank = node.listed("pads", 1) or [], node.rank()
    axes = [axis % rank for axis in node.numbers(3)] if node.has(3) else list(range(rank))
    before = dict(zip(axes, given[: len(axes)], strict=True))
    after = dict(zip(axes, given[len(axes) :], strict=True))
    pairs = [size for axis in reversed(range(rank)) for size in (before.get(axis, 0), after.get(axis, 0))]
    while len(pairs) > 2 and pairs[-2:] == [0, 0]:
        pairs = pairs[:-2]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[
        node.attribute("mode", "constant")
    ]
    value = float(node.constant(2)) if node.has(2) else float(node.attribute("value", 0.0))
    return node.applied(padded_values, [node.value(0)], pad=pairs, mode=mode, value=value)


def depth_to_space(values: Tensor, block: int) -> Tensor:
    batch, channels, height, width = values.shape
    split = values.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return split.reshape(batch, channels // block**2, height * block, width * block)


def shuffle(node: Node) -> Made:
    block = int(node.attribute("blocksize"))
    if node.attribute("mode", "DCR") == "CRD":
        return node.applied(torch.pixel_shuffle, [node.value(0)], upscale_factor=block)
    return node.applied(depth_to_space, [node.value(0)], block=block)


def space_to_depth(values: Tensor, block: int) -> Tensor:
    batch, channels, height, width = values.shape
    split = values.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return split.reshape(batch, channels * block**2, height // block, width // block)


def unshuffle(node: Node) -> Made:
    return node.applied(space_to_depth, [node.value(0)], block=int(node.attribute("blocksize")))


def filled(node: Node) -> Made:
    value = node.attribute("value", torch.zeros(1))
    return node.applied(torch.full, [], size=node.numbers(0), fill_value=value.reshape(-1)[0].item(), dtype=value.dtype)


def range_rule(node: Node) -> Made:
    start, stop, step = (node.constant(place) for place in range(3))
    return node.applied(torch.arange, [start.item(), stop.item(), step.item()], dtype=start.dtype)


RULES: dict[str, Rule] = {
    "Reshape": reshape, "Flatten": flatten, "Transpose": transpose, "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Expand": expand,
    "Tile": tile, "Concat": concat, "Split": split, "Pad": pad, "DepthToSpace": shuffle, "SpaceToDepth": unshuffle,
    "ConstantOfShape": filled, "Range": range_rule,
}  # fmt: skip
