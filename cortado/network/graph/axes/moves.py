"""Moves: where an operator that only moves data puts each entry, found by running it on index tags."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortado.network.graph.axes.variables import Axis, Variables

AxisList = list[Axis]
"""The axes of one tensor."""
Runs = Callable[[list[Tensor]], Any]
"""Runs the operator on replacement tensors."""


def axes_after_move(
    variables: Variables, shapes: list[tuple[int, ...]], axis_lists: list[AxisList], run: Runs, reason: str
) -> list[AxisList]:
    """Return the axes of all outputs of an operator that only moves entries of its inputs.

    Each tracked axis of each input is tagged in turn with its own indices, all other inputs with -1. An output axis
    gets the columns of the axes of one input; where two inputs contribute, they are joined. An axis from which the
    operator picks single entries is frozen for `reason`.
    """
    outputs: list[AxisList] = []
    extents: list[tuple[int, ...]] = []
    for number, axis_list in enumerate(axis_lists):
        resolved = [variables.resolve(axis) for axis in axis_list]
        parts: list[list[list[np.ndarray]]] | None = None
        for place, axis in enumerate(resolved):
            tracked = axis is not None
            if not tracked and parts is not None:
                continue
            found = tagged(shapes, number, place, run)
            extents = [tuple(tag.shape) for tag in found]
            if parts is None:
                parts = [[[] for _ in tag.shape] for tag in found]
            if axis is not None:
                landed = [add_columns(variables, axis, tag, parts[i]) for i, tag in enumerate(found)]
                if not all(landed):
                    variables.freeze(axis, reason)
        if parts is None:
            continue
        mine = [[merged_columns(columns) for columns in output] for output in parts]
        outputs = (
            mine if not outputs else [joined_axes(variables, a, b, reason) for a, b in zip(outputs, mine, strict=True)]
        )
    return outputs or [[None] * len(extent) for extent in extents]


def tagged(shapes: list[tuple[int, ...]], number: int, place: int, run: Runs) -> list[Tensor]:
    """Return the outputs when input `number` holds its own index along axis `place`, and every other input -1."""
    tags = []
    for i, shape in enumerate(shapes):
        if i == number:
            line = torch.arange(shape[place] if shape else 1, dtype=torch.int32)
            tags.append(line.view([-1 if d == place else 1 for d in range(len(shape))]).expand(shape))
        else:
            tags.append(torch.full((), -1, dtype=torch.int32).expand(shape))
    outputs = run(tags)
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def add_columns(variables: Variables, axis: np.ndarray, tag: Tensor, parts: list[list[np.ndarray]]) -> bool:
    """Add an input axis's columns to the output axes that depend on it; return False where entries are picked."""
    if tag.numel() == 0 or bool((tag < 0).all()):
        return True
    single = function_of_one(tag)
    if single is not None:
        place, index = single
        parts[place].append(rows_at(axis, index))
        return True
    used = [d for d in range(tag.dim()) if depends(tag, d)]
    if not used:
        # One entry of several was picked: its index is a constant of the program.
        return len(axis) == 1
    return spread_axis(variables, axis, tag, used, parts)


def function_of_one(tag: Tensor) -> tuple[int, np.ndarray] | None:
    """Return the one output axis on which a tag depends, and the index at each of its positions (-1: filled)."""
    for place in range(tag.dim()):
        if tag.shape[place] == 1:
            continue
        others = [d for d in range(tag.dim()) if d != place]
        high = tag.amax(others) if others else tag
        low = torch.where(tag < 0, torch.iinfo(tag.dtype).max, tag)
        low = low.amin(others) if others else low
        if bool(((high == low) | (high < 0)).all()) and len(torch.unique(high)) > 1:
            return place, high.numpy().astype(np.int64)
    return None


def depends(tag: Tensor, place: int) -> bool:
    """Return whether a tag varies along an axis, filled positions aside."""
    high = tag.amax(place)
    low = torch.where(tag < 0, torch.iinfo(tag.dtype).max, tag).amin(place)
    return not bool(((high == low) | (high < 0)).all())


def rows_at(axis: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the rows of an axis at `index`; -1 gives a row that nothing removes."""
    rows = axis[np.where(index < 0, 0, index)].copy()
    rows[index < 0] = -1
    return rows


def spread_axis(
    variables: Variables, axis: np.ndarray, tag: Tensor, used: list[int], parts: list[list[np.ndarray]]
) -> bool:
    """Spread an axis over several output axes: each column goes to its own axis, or is split into new families."""
    index = tag[tuple(slice(None) if d in used else 0 for d in range(tag.dim()))].numpy().astype(np.int64)
    if (index < 0).any():
        return False
    whole = True
    for column in axis.T:
        values = column[index]
        along = [i for i in range(values.ndim) if not (values == np.take(values, [0], axis=i)).all()]
        if len(along) == 1:
            place = along[0]
            line = values[tuple(slice(None) if i == place else 0 for i in range(values.ndim))]
            parts[used[place]].append(line[:, None])
            continue
        if not along:
            whole = False
            continue
        whole &= split_variables(variables, values, along, [parts[used[i]] for i in along])
    return whole


def split_variables(variables: Variables, values: np.ndarray, along: list[int], places: list[list[np.ndarray]]) -> bool:
    """Replace distinct variables on a grid by products of new ones, one family per grid axis.

    Slices may repeat along an axis, as heads do after merging with the batch.
    """
    grid = values[tuple(slice(None) if i in along else 0 for i in range(values.ndim))]
    repeats = []
    for axis in range(grid.ndim):
        _, first, inverse = np.unique(grid, axis=axis, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        grid = np.take(grid, first[order], axis=axis)
        repeats.append(rank[inverse.reshape(-1)])
    if len(np.unique(grid)) != grid.size or (grid < 0).any():
        return False
    families = [variables.fresh(size)[:, 0] for size in grid.shape]
    several = np.stack([mesh.reshape(-1) for mesh in np.meshgrid(*families, indexing="ij")], 1)
    if not variables.substitute(grid.reshape(-1), several):
        return False
    for place, family, repeat in zip(places, families, repeats, strict=True):
        place.append(family[repeat][:, None])
    return True


def merged_columns(columns: list[np.ndarray]) -> Axis:
    """Return the columns of several axes merged into one."""
    return np.concatenate(columns, 1) if columns else None


def joined_axes(variables: Variables, left: AxisList, right: AxisList, reason: str) -> AxisList:
    """Return the axes of one output from two inputs: rows of either, joined where both contribute."""
    return [both_rows(variables, a, b, reason) for a, b in zip(left, right, strict=True)]


def both_rows(variables: Variables, a: Axis, b: Axis, reason: str) -> Axis:
    """Return one axis from the rows of two."""
    if a is None or b is None:
        return b if a is None else a
    shared = (a >= 0).any(1) & (b >= 0).any(1)
    if shared.any():
        variables.join(a[shared], b[shared], reason)
    width = max(a.shape[1], b.shape[1])
    a, b = (np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1) for x in (a, b))
    return np.where((a >= 0).any(1, keepdims=True), a, b)
