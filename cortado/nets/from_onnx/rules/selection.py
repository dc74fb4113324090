"""Selection: operators that pick, sort or reduce entries, and resizing."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cortado.nets.from_onnx.node import Made, Node, Rule
from cortado.nets.from_onnx.rules.products import embedding_of

FAR = 2**31
"""An end of a slice beyond this stands for the end of the axis."""


def sliced_values(
    values: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> Tensor:
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == -1:
            values = values.flip(axis)
        else:
            index = [slice(None)] * axis + [slice(start, None if end >= FAR else end, step)]
            values = values[tuple(index)]
    return values


def slice_rule(node: Node) -> Made:
    """Return slices with constant ends; a whole axis is left alone."""
    starts, ends = node.listed("starts", 1), node.listed("ends", 2)
    axes = node.listed("axes", 3, list(range(len(starts or []))))
    steps = node.numbers(4) if node.has(4) else [1] * len(starts or [])
    cuts = []
    for start, end, axis, step in zip(starts or [], ends or [], axes or [], steps, strict=True):
        axis, size = axis % node.rank(), node.shape()[axis % node.rank()]
        reverse = step == -1 and (start == -1 or start >= size - 1) and end <= -size
        if step < 0 and not reverse:
            raise node.refuse("counts backwards over a part of an axis", "Slice forwards and reverse with a Gather.")
        if (start, step) == (0, 1) and end >= size and len({shape[axis] for shape in node.value(0).shapes()}) == 1:
            continue
        cuts.append((max(-size, min(start, size)), FAR if end >= size else max(-size, end), axis, step))
    columns = [list(column) for column in zip(*cuts, strict=True)] or [[], [], [], []]
    return node.applied(
        sliced_values, [node.value(0)], starts=columns[0], ends=columns[1], axes=columns[2], steps=columns[3]
    )


def one_entry(values: Tensor, index: int, axis: int) -> Tensor:
    return values.select(axis, index)


def gathered(values: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Return the rows of an axis, with the axes of the indices in its place."""
    indices = torch.where(indices < 0, indices + values.shape[axis], indices).long()
    found = values.index_select(axis, indices.reshape(-1))
    return found.reshape(*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :])


def gather(node: Node) -> Made:
    """Return a look-up in a table, one entry of an axis, or rows in any order."""
    if (table := embedding_of(node)) is not None:
        return table
    index = node.value(1)
    if index.fixed and index.held[0].dim() == 0:
        return node.applied(one_entry, [node.value(0)], index=int(index.held[0]), axis=node.axis())
    return node.applied(gathered, [node.value(0), index], axis=node.axis())


def gather_elements(node: Node) -> Made:
    return node.applied(along, [node.value(0), node.value(1)], dim=node.axis())


def along(values: Tensor, indices: Tensor, dim: int) -> Tensor:
    return torch.gather(values, dim, torch.where(indices < 0, indices + values.shape[dim], indices).long())


def reduction_rule(function: Callable[..., Any]) -> Rule:
    """Return the rule of a reduction_rule over constant axes."""

    def rule(node: Node) -> Made:
        axes = node.listed("axes", 1)
        if axes is None and node.attribute("noop_with_empty_axes", 0):
            axes = []
        elif not axes:
            axes = list(range(node.rank()))
        axes = sorted(axis % node.rank() for axis in axes)

        return node.applied(function, [node.value(0)], dim=axes, keepdim=bool(node.attribute("keepdims", 1)))

    return rule


def mean(values: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    return values.mean(tuple(dim), keepdim) if dim else values


def total(values: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    return values.sum(tuple(dim), keepdim).to(values.dtype) if dim else values


def product_of(values: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    for axis in reversed(dim):
        values = values.prod(axis, keepdim)
    return values


def sum_of_squares(values: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    return values.square().sum(tuple(dim), keepdim)


def magnitude(values: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    return values.abs().sum(tuple(dim), keepdim)


def root_of_squares(values: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    return values.square().sum(tuple(dim), keepdim).sqrt()


def log_sum(values: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    return values.sum(tuple(dim), keepdim).log()


def best_place(function: Callable[..., Tensor]) -> Rule:
    def rule(node: Node) -> Made:
        return node.applied(function, [node.value(0)], dim=node.axis(), keepdim=bool(node.attribute("keepdims", 1)))

    return rule


def top(node: Node) -> Made:
    count = int(node.attribute("k")) if "k" in node.given.attributes else node.numbers(1)[0]
    largest, ordered = bool(node.attribute("largest", 1)), bool(node.attribute("sorted", 1))
    return node.applied(torch.topk, [node.value(0)], k=count, dim=node.axis(-1), largest=largest, sorted=ordered)


def running_sum(node: Node) -> Made:
    if node.attribute("exclusive", 0) or node.attribute("reverse", 0):
        raise node.refuse("sums exclusively or backwards", "Shift or reverse in operators of their own.")
    return node.applied(torch.cumsum, [node.value(0)], dim=node.numbers(1)[0])


def resized_values(values: Tensor, size: Sequence[int], mode: str, corners: bool | None) -> Tensor:
    return functional.interpolate(values, tuple(size), mode=mode, align_corners=corners)


def resize_rule(node: Node) -> Made:
    """Return a resize_rule of the spatial axes to a constant size, nearest or linear."""
    shape = node.shape()
    scales = resize_scales(node)
    if scales is None:
        sizes = node.numbers(3)
    else:
        sizes = [int(size * scale) for size, scale in zip(shape, scales, strict=True)]
    mode = node.attribute("mode", "nearest")
    where = node.attribute("coordinate_transformation_mode", "half_pixel" if node.opset > 10 else "asymmetric")
    spatial, ratios = sizes[2:], [new / old for new, old in zip(sizes[2:], shape[2:], strict=True)]
    if mode == "nearest":
        rounding = node.attribute("nearest_mode", "round_prefer_floor" if node.opset > 10 else "floor")
        if not (where == "asymmetric" and rounding == "floor") and not all(
            ratio >= 1 and ratio == int(ratio) for ratio in ratios
        ):
            raise node.refuse(
                f"picks the nearest by {where} and {rounding}", "Export it with asymmetric and floor, as torch does."
            )
        return node.applied(resized_values, [node.value(0)], size=spatial, mode="nearest", corners=None)
    ways = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}
    if mode not in ("linear", "cubic") or where not in ways or node.attribute("antialias", 0):
        raise node.refuse(
            f"resizes by {mode} and {where}", "Export it with half_pixel or align_corners, without antialias."
        )
    names = {"linear": {1: "linear", 2: "bilinear", 3: "trilinear"}, "cubic": {2: "bicubic"}}
    name = names[mode].get(len(spatial))
    if name is None:
        raise node.refuse(f"resizes {len(spatial)} axes by {mode}", "Resize them in steps.")
    return node.applied(resized_values, [node.value(0)], size=spatial, mode=name, corners=ways[where])


def resize_scales(node: Node) -> list[float] | None:
    """Return the scale of each axis; None where sizes are given."""
    if "scales" in node.given.attributes:
        return [float(one) for one in node.attribute("scales")]
    place = 1 if node.opset < 11 else 2
    found = node.constant(place).reshape(-1).tolist() if node.has(place) else []
    return found or None


RULES: dict[str, Rule] = {
    "Slice": slice_rule, "Gather": gather, "GatherElements": gather_elements, "TopK": top, "CumSum": running_sum,
    "ArgMax": best_place(torch.argmax), "ArgMin": best_place(torch.argmin),
    "ReduceMean": reduction_rule(mean), "ReduceSum": reduction_rule(total), "ReduceMax": reduction_rule(torch.amax),
    "ReduceMin": reduction_rule(torch.amin), "ReduceProd": reduction_rule(product_of), "ReduceL1": reduction_rule(magnitude),
    "ReduceL2": reduction_rule(root_of_squares), "ReduceSumSquare": reduction_rule(sum_of_squares),
    "ReduceLogSum": reduction_rule(log_sum), "ReduceLogSumExp": reduction_rule(torch.logsumexp),
    "Resize": resize_rule, "Upsample": resize_rule,
}  # fmt: skip
