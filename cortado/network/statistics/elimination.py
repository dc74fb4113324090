"""Elimination: the loss in layers' outputs when inputs are removed and the remaining inputs compensate."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.network.coupling.groups import Group, Slot
from cortado.network.statistics.activations import (
    MOST_ENTRIES,
    activations_into,
    in_memory,
    layer_places,
    patch_moments,
    patches,
)
from cortado.network.statistics.channel_gradients import consuming_layers
from cortado.network.view import View
from cortado.task.task import Task

IMAGES, ROWS, RIDGE = 256, 16384, 1e-3
MOST_COLUMNS = 2304
"""Layers with more inputs x taps are treated per unit, not per column."""


@dataclass(frozen=True)
class EliminationProblem:
    """A layer as a least-squares problem: outputs = weight x inputs.

    `moments` (columns, columns) are the second moments of the inputs about their mean, `weight` is (outputs,
    columns), and `units` (columns,) is each column's unit; -1: none, the column stays. `squares` (columns,) are the
    sums of squared weights per column. All float64.
    """

    moments: Tensor
    weight: Tensor
    units: Tensor
    squares: Tensor

    def power(self) -> float:
        """Return the variance of the outputs, summed over them."""
        return float(((self.weight @ self.moments) * self.weight).sum())

    def by_unit(self, count: int) -> Tensor:
        """Return the second moments of each unit's contribution to the outputs, summed over outputs, (count, count)."""
        return unit_matmuls(self.moments * (self.weight.T @ self.weight), self.units, self.units, count)


def problems(view: View, groups: list[Group], task: Task) -> Iterator[list[EliminationProblem]]:
    """Yield, for each group, the problems of the linear and convolution layers that read its units, on calibration
    data.

    Raises BadNetwork for a group that no such layer reads.
    """
    assert task.calibration is not None
    weights = {weight.path: weight.dense().flatten(1) for weight in view.all_weights if len(weight.shape) > 1}
    read = [[slot for slot, _ in consuming_layers(view, group) if slot.names[0] in weights] for group in groups]
    for group, slots in zip(groups, read, strict=True):
        if not slots:
            raise BadNetwork(
                f"importance: the units of {group.name} are not read by a linear or convolution layer that can be observed. "
                "Exclude it with where=, or rank by magnitude."
            )
    sizes = [sum(min(weights[slot.names[0]].shape[1], MOST_COLUMNS) ** 2 for slot in slots) for slots in read]
    numbers = {path: n for n, path in enumerate(dict.fromkeys(slot.layer for slots in read for slot in slots))}
    for chunk in in_memory(sizes):
        slots = [slot for number in chunk for slot in read[number]]
        small = {slot.layer: numbers[slot.layer] for slot in slots if weights[slot.names[0]].shape[1] <= MOST_COLUMNS}
        seen = patch_moments(view.network, small, task, IMAGES, ROWS) if small else {}
        for number in chunk:
            found = []
            for slot in read[number]:
                weight, units = weights[slot.names[0]].double().cpu(), columns_of(slot, weights[slot.names[0]])
                if slot.layer in seen:
                    found.append(
                        EliminationProblem(seen[slot.layer].covariance.cpu(), weight, units, weight.square().sum(0))
                    )
                else:
                    found.append(coarse(view, task, slot, weight, units, groups[number].count, numbers[slot.layer]))
            yield found


def columns_of(slot: Slot, weight: Tensor) -> Tensor:
    """Return the unit of each column of a flat weight; a unit's taps are consecutive."""
    return slot.units.repeat_interleave(weight.shape[1] // len(slot.units))


def coarse(
    view: View, task: Task, slot: Slot, weight: Tensor, units: Tensor, count: int, number: int
) -> EliminationProblem:
    """Return a wide layer's problem: each unit's contribution to the output is one input with one adjustable factor."""
    assert task.calibration is not None
    data, generator = task.calibration.first(IMAGES), layer_places(task, number)
    layer = view.network.get_submodule(slot.layer)
    each = max(1, min(ROWS, MOST_ENTRIES // weight.shape[1]) // len(data))
    rows = torch.cat(
        [patches(layer, s, each, generator).float().cpu() for s in activations_into(view.network, slot.layer, data)]
    )
    rows, weight = rows - rows.mean(0), weight.float()
    matmul_layers = torch.zeros(count, count, dtype=torch.float64)
    for chunk in torch.arange(weight.shape[1]).split(1024):
        part = (rows[:, chunk].T @ rows / len(rows)) * (weight[:, chunk].T @ weight)
        matmul_layers += unit_matmuls(part.double(), units[chunk], units, count)
    squares, mine = torch.zeros(count, dtype=torch.float64), units >= 0
    squares.index_add_(0, units[mine], weight.double().square().sum(0)[mine])
    return EliminationProblem(matmul_layers, torch.ones(1, count, dtype=torch.float64), torch.arange(count), squares)


def unit_matmuls(matmul_layers: Tensor, above: Tensor, beside: Tensor, count: int) -> Tensor:
    """Return entries summed over the columns of each pair of units, (count, count)."""
    down = matmul_layers.new_zeros(count, matmul_layers.shape[1]).index_add(
        0, above[above >= 0], matmul_layers[above >= 0]
    )
    return down.new_zeros(count, count).index_add(1, beside[beside >= 0], down[:, beside >= 0])


class Elimination:
    """Removes units from one problem one by one, and refits the weights of all remaining columns each time.

    Optimal Brain Surgeon for whole units: with P the inverse of the moments, removing the columns u costs tr(W_u
    P_uu^-1 W_u'), and W loses W_u P_uu^-1 P_u. A ridge keeps the weight near its value where samples do not determine
    it. Costs are shares of the variance of the outputs.
    """

    def __init__(self, problem: EliminationProblem) -> None:
        ridge = RIDGE * problem.moments.diagonal().mean().clamp(min=1e-30)
        lifted = problem.moments + ridge * torch.eye(len(problem.moments), dtype=torch.float64)
        self.inverse = torch.cholesky_inverse(factor_of(lifted))
        self.weight, self.units = problem.weight.clone(), problem.units
        self.scale = 1 / max(problem.power(), 1e-30)
        self.blocks = blocks_of(problem.units)

    def costs(self, alive: Tensor) -> Tensor:
        """Return the cost of removing each remaining unit; 0 for all others and for unread ones, (units,)."""
        found = torch.zeros(len(alive), dtype=torch.float64)
        for units, columns in self.blocks:
            here = alive[units]
            at = columns[here]
            inner = self.inverse[at[:, :, None], at[:, None, :]]
            mine = self.weight[:, at].permute(1, 2, 0)
            found[units[here]] = (torch.linalg.solve(inner, mine) * mine).sum((1, 2)) * self.scale
        return found

    def remove(self, unit: int) -> None:
        """Remove a unit."""
        at = (self.units == unit).nonzero().squeeze(1)
        if not len(at):
            return
        pull = torch.linalg.solve(self.inverse[at[:, None], at], self.inverse[at])
        self.weight -= self.weight[:, at] @ pull
        self.inverse -= self.inverse[:, at] @ pull
        self.weight[:, at] = 0


def factor_of(moments: Tensor) -> Tensor:
    """Return the Cholesky factor.  Raises BadNetwork for moments that are not finite or not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(moments)
    if bool(failed) or not bool(torch.isfinite(factor).all()):
        raise BadNetwork(
            "importance: the activations of a layer have no valid second moments, because of NaN, infinite or very large "
            "entries. Check the calibration data, or rank by magnitude."
        )
    return factor


def blocks_of(units: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return units grouped by their number of columns: (units,) and (units, columns of each)."""
    names, counts = units[units >= 0].unique(return_counts=True)
    order = units.argsort(stable=True)
    order = order[units[order] >= 0]
    parts = dict(zip(names.tolist(), order.split(counts.tolist()), strict=True))
    return [
        (names[counts == size], torch.stack([parts[name] for name in names[counts == size].tolist()]))
        for size in counts.unique()
    ]
