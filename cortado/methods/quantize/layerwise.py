"""Layerwise: round one product after another so that its outputs stay what they were, on inputs that are rounded by then."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cortado.errors import NothingChanged
from cortado.forms.hold import plain_class
from cortado.forms.low_rank import LowRank
from cortado.forms.masked import Masked
from cortado.forms.quantized import Quantized
from cortado.method import Method
from cortado.network.signals import rows_into
from cortado.network.view import View, Weight
from cortado.task import Task

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
RIDGE = 0.01
"""Of the mean second moment; it also pulls towards the weight as it is."""


@dataclass(frozen=True)
class Problem:
    """One layer's weight and what it has to do, for each of its groups.

    `weight`: (groups, outputs, inputs), the best floats for the inputs that the layer reads by now; `inputs`: (groups,
    rows, inputs) and `outputs`: (groups, rows, outputs), centred, of the network before. float64.
    """

    weight: Tensor
    inputs: Tensor
    outputs: Tensor

    @property
    def gram(self) -> Tensor:
        """Second moments of the inputs with the ridge, (groups, inputs, inputs)."""
        found = self.inputs.mT @ self.inputs / self.inputs.shape[1]
        pull = RIDGE * found.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
        return found + pull[:, None, None] * torch.eye(found.shape[-1], dtype=found.dtype)


@dataclass(frozen=True)
class Grid:
    """An even grid for each output: (codes - zero) x scale; scale and zero (groups, outputs, 1), codes low .. high."""

    scale: Tensor
    zero: Tensor
    low: int
    high: int

    def round(self, values: Tensor, scale: Tensor | None = None) -> Tensor:
        """Codes counted from the zero point."""
        levels = (values / (self.scale if scale is None else scale)).round() + self.zero
        return levels.clamp(self.low, self.high) - self.zero

    @classmethod
    def over(cls, weight: Tensor, bits: int, symmetric: bool) -> "Grid":
        """The grid of least squared error over each row of (groups, outputs, inputs)."""
        groups, outputs, inputs = weight.shape
        found = Quantized.of(weight.reshape(-1, inputs), bits, "channel", 0, symmetric, "mse")
        scale = found.scale.detach().double().view(groups, outputs, 1)
        if found.zero is None:
            return cls(scale, torch.zeros_like(scale), -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
        return cls(scale, found.zero.double().view(groups, outputs, 1), 0, 2**bits - 1)


Solve = Callable[[Problem, Grid], tuple[Tensor, Tensor]]
"""Codes, counted from the zero point, and scales (groups, outputs, 1)."""


def round_layers(
    method: Method,
    view: View,
    task: Task,
    bits: Callable[[str], int],
    symmetric: bool,
    images: int,
    rows: int,
    solve: Solve,
) -> None:
    """Hold the weight of each chosen linear layer or convolution in the codes that `solve` finds, in running order.

    `bits`: of the layer at a path. Raises NothingChanged where none is chosen. Weights with a mask or in low rank,
    and shared ones, are left alone and named in a note.
    """
    chosen, left = products(method, view)
    data = task.calibration.first(images) if task.calibration is not None else None
    assert data is not None
    count = -(-rows // len(data))
    for number, (path, weight) in enumerate(chosen):
        now, before = (
            rows_into(network, path, data, count, task.generator(5003 + number))
            for network in (view.network, view.reference)
        )
        problem = problem_of(weight, view.reference.get_submodule(path), now, before)
        grid = Grid.over(problem.weight, bits(path), symmetric)
        codes, scale = solve(problem, grid)
        shape, zero = weight.shape, None if symmetric else grid.zero.reshape(-1)
        whole = (codes + grid.zero).reshape(shape).to(torch.int32)
        place = weight.dense()
        weight.put(Quantized(whole, scale.reshape(-1).to(place), zero, "channel").to(place.device))
    if left:
        view.notes.append(
            f"{len(left)} weights were left as they are, masked, in low rank or shared: {', '.join(left)}."
        )


def products(method: Method, view: View) -> tuple[list[tuple[str, Weight]], list[str]]:
    """The chosen weights whose layers can be rounded so, in running order, with their paths; and those left out."""
    by_layer = {id(weight.layer): weight for weight in view.weights(method.where) if len(weight.shape) > 1}
    found: dict[str, Weight] = {}
    left: list[str] = []
    for call in view.trace.calls:
        weight = by_layer.pop(id(call.layer), None)
        if weight is None or plain_class(call.layer) not in KINDS:
            continue
        if not isinstance(weight.form, (Masked, LowRank)) and len(weight.places) == 1:
            found[call.path] = weight
        else:
            left.append(weight.path)
    if not found:
        raise NothingChanged(
            f"{method.name()}: no linear layer or convolution without a mask and not in low rank is called among those "
            f"that where takes ({method.where}). Name some, or take quantize/weights."
        )
    return list(found.items()), left


def problem_of(weight: Weight, before: nn.Module, now: Tensor, then: Tensor) -> Problem:
    """The problem of one layer: `now` and `then` are what it sees, and what the layer `before` saw, row by row."""
    groups = getattr(weight.layer, "groups", 1)
    old = weight.dense().double().cpu().flatten(1)
    wanted = before.weight.detach().double().cpu().flatten(1)  # type: ignore[operator, union-attr]
    split = [one.view(groups, -1, one.shape[1]) for one in (old, wanted)]
    inputs, seen = (in_groups(one - one.mean(0), groups) for one in (now, then))
    outputs = seen @ split[1].mT
    plain = Problem(split[0], inputs, outputs)
    gram = plain.gram
    ridge = gram - inputs.mT @ inputs / inputs.shape[1]
    best = torch.linalg.solve(gram, inputs.mT @ outputs / inputs.shape[1] + ridge @ split[0].mT).mT
    return Problem(best, inputs, outputs)


def in_groups(rows: Tensor, groups: int) -> Tensor:
    """(rows, groups x inputs) as (groups, rows, inputs)."""
    return rows.view(len(rows), groups, -1).transpose(0, 1).contiguous()


def best_scale(codes: Tensor, problem: Problem, gram: Tensor, scale: Tensor) -> Tensor:
    """The scale of each output with which these codes come closest to its outputs."""
    wanted = (problem.weight @ gram * codes).sum(-1, keepdim=True)
    size = (codes @ gram * codes).sum(-1, keepdim=True)
    found = wanted / size.clamp(min=1e-30)
    return torch.where((size > 0) & (found > 0), found, scale)
