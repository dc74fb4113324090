"""Movement: operators that move, repeat, split or join entries; running them on index tags finds where each goes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from cortado.layers.roles import JOIN, MOVE
from cortado.network.graph.axes.constants import Constant, edges, padding, parts, repeats, sizes
from cortado.network.graph.axes.moves import AxisList, axes_after_move
from cortado.network.graph.axes.step import Step, Value, is_tensor, node_shape
from cortado.network.graph.operators.elementwise import passing
from cortado.network.graph.operators.facts import Arguments, free, known

SIZES = {"view": "size", "_unsafe_view": "size", "reshape": "shape"}
"""Operators with a list of sizes in which -1 is inferred, and the argument's name."""


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


def picked(step: Step) -> Value:
    """Follow an operator that gives some of the entries: where others are left, places matter."""
    dim = int(step.arg("dim", 0))
    x, found = step.tensors()[0], followed(step)
    axis = x.axis_list[dim % len(x)]
    for made in found:
        # Selecting one entry removes the axis.
        if len(made) < len(x) or variable_count(step, made[dim % len(x)]) < variable_count(step, axis):
            step.orders(axis)
    return found if isinstance(step.node.meta.get("val"), (tuple, list)) else found[0]


def variable_count(step: Step, axis: Any) -> int:
    """Return the number of variables on an axis."""
    resolved = step.variables.resolve(axis)
    return 0 if resolved is None else len(np.unique(resolved))


def expanded(step: Step) -> Value:
    """Return free axes where the input is expanded: they are constant along themselves."""
    x, out = step.tensors()[0], followed(step)[0]
    grown = (1,) * (len(out) - len(x)) + x.shape
    return [
        step.variables.fresh(size) if size > 1 and before == 1 else axis
        for axis, size, before in zip(out, step.shape, grown, strict=True)
    ]


def repeated_axes(step: Step) -> Value:
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


def repeated_entries(step: Step) -> Value:
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


def padded(step: Step) -> Value:
    """Return free rows for padding next to tracked ones."""
    out = followed(step)[0]
    if step.arg("value"):
        step.lifts(*out)
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


def split_axes(step: Step) -> Value:
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
        step.orders(x.axis_list[dim])
        return found
    for other in given[1:]:
        if given[0] is None or other is None:
            step.freeze(given[0], other)
        else:
            step.join(given[0], other)
    if variable_count(step, given[0]) < variable_count(step, x.axis_list[dim]):
        step.orders(x.axis_list[dim])
    return found


def sliced(step: Step) -> Value:
    """Follow slices: contiguous rows keep their order; strided ones would not after a cut."""
    x = step.tensors()[0]
    if int(step.arg("step", 1)) != 1:
        step.freeze(x.axis_list[int(step.arg("dim", 0)) % len(x)])
    return picked(step)


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


def fills_with(place: int) -> Any:
    """Return whether padding adds other values than zeros, with that value as argument number `place`."""

    def fills(given: Arguments, named: Mapping[str, Any]) -> bool:
        return bool(given[place] if len(given) > place else named.get("value"))

    return fills


def shape_sizes(step: Step) -> list[Constant]:
    """Return the sizes of a new shape."""
    return sizes(step, SIZES.get(step.name, "size"), step.outputs())


def unflattened_sizes(step: Step) -> list[Constant]:
    """Return the sizes into which an axis is split."""
    return sizes(step, "sizes", step.outputs()[int(step.arg("dim")) % len(step.tensors()[0]) :])


def part_sizes(step: Step) -> list[Constant]:
    return parts(step, "split_sizes" if step.name == "split_with_sizes" else "split_size")


def copies(step: Step) -> list[Constant]:
    return repeats(step, "dims" if step.name == "tile" else "repeats")


OPERATORS = (
    known("view reshape _unsafe_view", role=MOVE, axes=move, constants=shape_sizes, cost=free)
    | known("unflatten", role=MOVE, axes=move, constants=unflattened_sizes)
    | known(
        "flatten permute transpose t squeeze unsqueeze pixel_shuffle",
        role=MOVE,
        axes=move,
        cost=free,
    )
    | known("flip", role=MOVE, axes=move, cost=free)
    | known("cat", role=JOIN, concatenates=True, axes=move, cost=free)
    | known("stack im2col pixel_unshuffle", axes=move, cost=free)
    | known("reshape_as view_as swapaxes concat movedim unfold numpy_T mT T hstack vstack", axes=move)
    | known("select unbind", role=MOVE, axes=picked, cost=free)
    | known("narrow", axes=picked, constants=edges)
    | known("slice", role=MOVE, axes=sliced, constants=edges, cost=free)
    | known("expand", role=MOVE, axes=expanded, constants=shape_sizes, cost=free)
    | known("expand_as broadcast_to", axes=expanded)
    | known("repeat", axes=repeated_axes, constants=copies, cost=free)
    | known("tile", axes=repeated_axes, constants=copies)
    | known("repeat_interleave", axes=repeated_entries, constants=copies, cost=free)
    | known("pad", role=MOVE, axes=padded, constants=padding, fills=fills_with(3))
    | known("constant_pad_nd", role=MOVE, axes=padded, constants=padding, fills=fills_with(2), cost=free)
    | known("reflection_pad2d", role=MOVE, cost=free)
    | known("split", role=MOVE, axes=split_axes, constants=part_sizes, cost=free)
    | known("split_with_sizes", role=MOVE, axes=split_axes, constants=part_sizes, cost=free)
    | known("chunk", role=MOVE, axes=split_axes)
    | known("unsafe_split", axes=split_axes, constants=part_sizes, cost=free)
    | known("unsafe_chunk", axes=split_axes)
    | known("glu", axes=gated, cost=free)
    | known("roll", axes=shift, cost=free)
    | known("clone contiguous alias detach _to_copy", role=MOVE, axes=passing, cost=free)
    | known("lift_fresh_copy", axes=passing, cost=free)
    | known("to type_as pin_memory requires_grad nan_to_num", axes=passing)
    | known(
        "copy view_copy _reshape_copy unsafe_split_with_sizes split_with_sizes_copy unfold_copy tril triu resize set "
        "lift_fresh col2im native_channel_shuffle reflection_pad1d reflection_pad3d replication_pad1d replication_pad2d "
        "replication_pad3d",
        cost=free,
    )
)
