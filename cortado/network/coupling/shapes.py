"""Shapes: operators that move, repeat, split or join data; index tags suffice for most."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from cortado.network.coupling.moves import AxisList, axes_after_move
from cortado.network.coupling.step import Step, Value, is_tensor, node_shape


def followed(step: Step) -> list[AxisList]:
    """Return the axes of all outputs, found by running the operator on index tags."""
    nodes = [node for node in step.node.all_input_nodes if is_tensor(node)]

    def run(tags: list[Tensor]) -> Any:
        by_node = dict(zip(nodes, tags, strict=True))
        arguments = fx.map_arg(step.node.args, lambda node: by_node.get(node, node))
        named = fx.map_arg(step.node.kwargs, lambda node: by_node.get(node, node))
        if step.name in ("view", "view_as"):
            # Tags are expanded tensors, whose strides a view may reject.
            return arguments[0].reshape(step.shape)  # type: ignore[union-attr]
        if step.name in ("pad", "constant_pad_nd") and step.arg("mode", "constant") in ("constant", None):
            return torch.constant_pad_nd(arguments[0], step.arg("pad"), -1)  # type: ignore[arg-type]
        return step.node.target(*arguments, **named)  # type: ignore[operator]

    return axes_after_move(
        step.variables, [node_shape(n) for n in nodes], [step.axis_list_of(n) for n in nodes], run, step.reason
    )


def move(step: Step) -> Value:
    """Follow an operator with one output tensor, or a list of them."""
    found = followed(step)
    return found if isinstance(step.node.meta.get("val"), (tuple, list)) else found[0]


def expand(step: Step) -> Value:
    """Return free axes where the input is expanded: they are constant along themselves."""
    x, out = step.tensors()[0], followed(step)[0]
    grown = (1,) * (len(out) - len(x)) + x.shape
    return [
        step.variables.fresh(size) if size > 1 and before == 1 else axis
        for axis, size, before in zip(out, step.shape, grown, strict=True)
    ]


def repeat(step: Step) -> Value:
    """Follow repeat and tile: an axis of size 1 becomes free; a longer one stays whole unless it is copied once."""
    x, out = step.tensors()[0], followed(step)[0]
    grown = (1,) * (len(out) - len(x)) + x.shape
    result: AxisList = []
    for axis, size, before in zip(out, step.shape, grown, strict=True):
        if axis is not None and before not in (1, size):
            rest = step.variables.fresh(size // before)
            axis = np.concatenate([np.repeat(rest, before, 0), axis], 1)
        result.append(step.variables.fresh(size) if size > 1 and before == 1 else axis)
    return result


def repeat_interleave(step: Step) -> Value:
    """Follow each entry `repeats` times in a row: (entry, copy)."""
    x = step.tensors()[0]
    repeats, dim = step.arg("repeats"), step.arg("dim")
    if not isinstance(repeats, int) or dim is None:
        return step.blocked()
    if repeats == 1:
        return x.axis_list
    place = int(dim) % len(x)
    axis = step.variables.resolve(x.axis_list[place])
    copies = step.variables.fresh(repeats)
    made = np.tile(copies, (x.shape[place], 1))
    if axis is not None:
        made = np.concatenate([np.repeat(axis, repeats, 0), made], 1)
    return [made if at == place else axis_list for at, axis_list in enumerate(x.axis_list)]


def pad(step: Step) -> Value:
    """Return free rows for padding next to tracked ones."""
    out = followed(step)[0]
    result: AxisList = []
    for axis in out:
        if axis is not None:
            axis = axis.copy()
            filled = (axis < 0).all(1)
            if filled.any() and step.arg("mode", "constant") not in ("constant", None):
                step.freeze(axis)
            elif filled.any():
                axis[filled, :1] = step.variables.fresh(int(filled.sum()))
        result.append(axis)
    return result


def parts(step: Step) -> Value:
    """Follow chunk and split: equal parts stay equal, so entry i of all parts is removed together."""
    found = followed(step)
    x = step.tensors()[0]
    dim = int(step.arg("dim", 0)) % len(x)
    if step.variables.resolve(x.axis_list[dim]) is None:
        return found
    given = [axis_list[dim] for axis_list in found]
    sizes = [int(part.shape[dim]) for part in step.node.meta["val"]]
    explicit = step.name == "split_with_sizes" or isinstance(step.arg("split_size"), (list, tuple))
    if len(set(sizes)) > 1:
        if not explicit:
            step.freeze(x.axis_list[dim])
        return found
    for other in given[1:]:
        if given[0] is None or other is None:
            step.freeze(given[0], other)
        else:
            step.join(given[0], other)
    return found


def sliced(step: Step) -> Value:
    """Follow slices: contiguous rows keep their order; strided ones would not after a cut."""
    x = step.tensors()[0]
    if int(step.arg("step", 1)) != 1:
        step.freeze(x.axis_list[int(step.arg("dim", 0)) % len(x)])
    return followed(step)[0]


def gated(step: Step) -> Value:
    """Follow glu: one half gates the other, entry by entry."""
    x = step.tensors()[0]
    dim = int(step.arg("dim", -1)) % len(x)
    axis = step.variables.resolve(x.axis_list[dim])
    if axis is not None:
        half = len(axis) // 2
        step.join(axis[:half], axis[half:])
        axis = axis[:half]
    return [axis if place == dim else axis_list for place, axis_list in enumerate(x.axis_list)]


def shift(step: Step) -> Value:
    """Keep whole the axis that roll rotates."""
    x = step.tensors()[0]
    places = {int(d) % len(x) for d in (step.arg("dims") or range(len(x)))}
    step.freeze(*(x.axis_list[place] for place in places))
    return [None if place in places else axis for place, axis in enumerate(x.axis_list)]


def shape_rules(text: str) -> list[str]:
    return text.split()


SHAPES = {
    **dict.fromkeys(shape_rules(
        "view reshape reshape_as view_as flatten unflatten permute transpose t swapaxes squeeze unsqueeze select narrow "
        "unbind cat concat stack im2col pixel_shuffle pixel_unshuffle movedim unfold numpy_T mT T _unsafe_view hstack vstack "
        "flip"
    ), move),
    **dict.fromkeys(shape_rules("expand expand_as broadcast_to"), expand), **dict.fromkeys(shape_rules("repeat tile"), repeat),
    "repeat_interleave": repeat_interleave, **dict.fromkeys(shape_rules("pad constant_pad_nd"), pad),
    **dict.fromkeys(shape_rules("chunk split split_with_sizes unsafe_split unsafe_chunk"), parts),
    "slice": sliced, "glu": gated, "roll": shift,
}  # fmt: skip
