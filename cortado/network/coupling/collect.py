"""Collect: turn the variables of a walked network into groups of units that occupy the same axes."""

import numpy as np
import torch
from torch import fx

from cortado.network.coupling.groups import Frozen, Group, Groups, Slot, tracked_axes
from cortado.network.coupling.walk import Walked

Place = tuple[fx.Node, int]


def collect(walked: Walked) -> Groups:
    """Return the groups of a walked network, before any trial cut."""
    axes = tracked_axes(walked)
    places = list(axes)
    groups = Groups(walked)
    marks = walked.variables.marks
    for signature, variables in signatures(axes, places).items():
        on = list(dict.fromkeys(places[number] for number, _ in signature))
        frozen = np.array([int(v) in marks.frozen for v in variables])
        name = name_of(walked, on)
        if frozen.any():
            reason = marks.frozen[int(variables[frozen][0])]
            if reason:
                groups.frozen.append(Frozen(name, int(frozen.sum()), reason))
        if frozen.all():
            continue
        free = variables[~frozen]
        slots = tuple(slot_of(walked, place, axes[place], free) for place in on)
        if all(slot.role == "rider" for slot in slots):
            # For example positions of a mask that no text was long enough to reach.
            groups.frozen.append(Frozen(name, len(free), "no layer makes them and no layer reads them"))
            continue
        reasons = [
            next((mark[int(v)] for v in free if int(v) in mark), "")
            for mark in (marks.inexact, marks.lifted, marks.absorbed, marks.ordered)
        ]
        groups.all.append(Group(name, free, slots, int(free[0]) in marks.heads, *reasons))
    return distinct_names(groups)


def signatures(axes: dict[Place, np.ndarray], places: list[Place]) -> dict[tuple[tuple[int, int], ...], np.ndarray]:
    """Return the variables by their axes and columns there, in order of appearance.

    Heads and their widths may occupy the same axes, crosswise: their columns tell them apart.
    """
    pairs = []
    for number, place in enumerate(places):
        for column, values in enumerate(axes[place].T):
            _, first = np.unique(values, return_index=True)
            ordered = values[np.sort(first)]
            ordered = ordered[ordered >= 0]
            pairs.append(np.stack([ordered, np.full(len(ordered), number), np.full(len(ordered), column)], 1))
    if not pairs:
        return {}
    together = np.concatenate(pairs)
    order = np.argsort(together[:, 0], kind="stable")
    variables, starts = np.unique(together[order, 0], return_index=True)
    lists = np.split(together[order, 1:], starts[1:])
    on = {int(v): tuple(map(tuple, rows.tolist())) for v, rows in zip(variables, lists, strict=True)}
    found: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for variable in dict.fromkeys(together[:, 0].tolist()):
        found.setdefault(on[variable], []).append(variable)
    return {signature: np.array(members, np.int64) for signature, members in found.items()}


def slot_of(walked: Walked, place: Place, axis: np.ndarray, variables: np.ndarray) -> Slot:
    """Return the slot of a group's units on one axis."""
    order = np.argsort(variables)
    at = np.searchsorted(variables[order], axis).clip(max=len(variables) - 1)
    mine = variables[order][at] == axis
    units = np.where(mine, order[at], -1).max(1)
    node, number = place
    return Slot(walked.captured.tensors[node], number, torch.from_numpy(units), walked.roles.get(place, "rider"))


def name_of(walked: Walked, places: list[Place]) -> str:
    """Return the layer that makes the units, or the first tensor that has them."""
    made = [place for place in places if walked.roles.get(place) == "producer"]
    name = walked.captured.tensors[(made or places)[0][0]][0]
    return name.removesuffix(".weight") if made else name


def distinct_names(groups: Groups) -> Groups:
    """Number the groups of a layer that has several."""
    seen: dict[str, int] = {}
    for group in groups.all:
        seen[group.name] = seen.get(group.name, 0) + 1
        if seen[group.name] > 1:
            group.name = f"{group.name}#{seen[group.name]}"
    return groups
