"""Layerwise: round one product after another so that its outputs stay what they were, on inputs that are rounded by then."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cortado.errors import NothingChanged
from cortado.methods.method import Method
from cortado.network.statistics.activations import rows_into
from cortado.network.view import View, Weight
from cortado.parts.forms.attach import original_class
from cortado.parts.forms.low_rank import LowRank
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Task

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
RIDGE = 0.01
"""Of the mean second moment; it also pulls towards the weight as it is."""
MOST_ENTRIES = 2**23
"""Entries of second moments of single outputs that are held at a time."""


@dataclass(frozen=True)
class LayerProblem:
    """One layer's weight and what it has to do, for each of its groups.

    `weight`: (groups, outputs, inputs), the best floats for the inputs that the layer reads by now; `inputs`: (groups,
    rows, inputs) and `outputs`: (groups, rows, outputs), centred, of the network before. float64. `free`: bool, as large
    as the weight, false where it has to stay zero; None where nothing has to.
    """

    weight: Tensor
    inputs: Tensor
    outputs: Tensor
    free: Tensor | None = None

    @property
    def gram(self) -> Tensor:
        """Second moments of the inputs with the ridge, (groups, inputs, inputs)."""
        found = self.inputs.mT @ self.inputs / self.inputs.shape[1]
        pull = RIDGE * found.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
        return found + pull[:, None, None] * torch.eye(found.shape[-1], dtype=found.dtype)


@dataclass(frozen=True)
class Share:
    """Some outputs of one group, each with only those inputs that are free for it, the free ones first.

    `places`: (outputs, 1, most) says which inputs these are, `real`: (outputs, 1, most) is false where an output has
    fewer than most. `gram`: (outputs, most, most), that of each output, with ones where nothing is real.
    """

    group: int
    outputs: slice
    places: Tensor
    real: Tensor
    gram: Tensor

    def of(self, values: Tensor) -> Tensor:
        """What (groups, outputs, inputs) has at these places, as (outputs, 1, most)."""
        return values[self.group, self.outputs, None].gather(2, self.places) * self.real

    def put(self, into: Tensor, values: Tensor) -> None:
        """The way back."""
        into[self.group, self.outputs] += torch.zeros_like(into[self.group, self.outputs]).scatter_add(
            1, self.places[:, 0], (values * self.real)[:, 0]
        )


def output_shares(gram: Tensor, free: Tensor) -> Iterator[Share]:
    """All outputs, those of a share at a time: masks differ, and so do the second moments of what is left."""
    groups, outputs, inputs = free.shape
    for group in range(groups):
        start = 0
        while start < outputs:
            most = int(free[group, start:].sum(1).max().clamp(min=1))
            chosen = slice(start, start + max(1, MOST_ENTRIES // most**2))
            mask = free[group, chosen]
            most = int(mask.sum(1).max().clamp(min=1))
            places = mask.int().argsort(dim=1, descending=True, stable=True)[:, None, :most]
            real = mask[:, None].gather(2, places)
            own = gram[group][places.mT, places]
            yield Share(group, chosen, places, real, torch.where(real & real.mT, own, torch.eye(most).to(own)))
            start = chosen.stop


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

    def part(self, group: int, outputs: slice) -> "Grid":
        """The grid of some outputs, each as a group of its own."""
        return Grid(self.scale[group, outputs, None], self.zero[group, outputs, None], self.low, self.high)

    @classmethod
    def over(cls, weight: Tensor, bits: int, symmetric: bool) -> "Grid":
        """The grid of least squared error over each row of (groups, outputs, inputs)."""
        groups, outputs, inputs = weight.shape
        found = Quantized.of(weight.reshape(-1, inputs), bits, "channel", 0, symmetric, "mse")
        scale = found.scale.detach().double().view(groups, outputs, 1)
        if found.zero is None:
            return cls(scale, torch.zeros_like(scale), -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
        return cls(scale, found.zero.double().view(groups, outputs, 1), 0, 2**bits - 1)


Solve = Callable[[LayerProblem, Grid], tuple[Tensor, Tensor]]
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

    `bits`: of the layer at a path. Raises NothingChanged where none is chosen. What a mask leaves out is zero among the
    codes afterwards. Weights in low rank, and shared ones, are left alone and named in a note.
    """
    chosen, left = matmul_layers(method, view)
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
        weight.set_form(Quantized(whole, scale.reshape(-1).to(place), zero, "channel").to(place.device))
    if left:
        view.notes.append(
            f"{len(left)} weights were left as they are, in low rank, shared, or of no linear layer or convolution: "
            f"{', '.join(left)}."
        )


def matmul_layers(method: Method, view: View) -> tuple[list[tuple[str, Weight]], list[str]]:
    """The chosen weights whose layers can be rounded so, in running order, with their paths; and those left out."""
    chosen = [weight for weight in view.weights(method.where) if len(weight.shape) > 1]
    by_layer = {id(layer): weight for weight in chosen for layer, _ in weight.places}
    found: dict[str, Weight] = {}
    for call in view.trace.calls:
        weight = by_layer.pop(id(call.layer), None)
        if weight is None or original_class(call.layer) not in KINDS:
            continue
        if not isinstance(weight.form, LowRank) and len(weight.places) == 1:
            found[call.path] = weight
    taken = {weight.path for weight in found.values()}
    left = [weight.path for weight in chosen if weight.path not in taken]
    if not found:
        raise NothingChanged(
            f"{method.name()}: no linear layer or convolution that is not in low rank is called among those "
            f"that where takes ({method.where}). Name some, or take quantize/weights."
        )
    return list(found.items()), left


def problem_of(weight: Weight, before: nn.Module, now: Tensor, then: Tensor) -> LayerProblem:
    """The problem of one layer: `now` and `then` are what it sees, and what the layer `before` saw, row by row."""
    groups = getattr(weight.layer, "groups", 1)
    old = weight.dense().double().cpu().flatten(1)
    wanted = before.weight.detach().double().cpu().flatten(1)  # type: ignore[operator, union-attr]
    split = [one.view(groups, -1, one.shape[1]) for one in (old, wanted)]
    inputs, seen = (in_groups(one - one.mean(0), groups) for one in (now, then))
    outputs = seen @ split[1].mT
    free = weight.form.mask.cpu().flatten(1).view_as(split[0]) if isinstance(weight.form, Masked) else None
    original = LayerProblem(split[0], inputs, outputs, free)
    gram = original.gram
    seen_together = inputs.mT @ inputs / inputs.shape[1]
    target = outputs.mT @ inputs / inputs.shape[1] + split[0] @ (gram - seen_together)
    return replace(original, weight=least_squares(gram, target, free))


def least_squares(gram: Tensor, target: Tensor, free: Tensor | None) -> Tensor:
    """The (groups, outputs, inputs) that is free alone and whose products with the gram are what is wished for there."""
    if free is None:
        return torch.linalg.solve(gram, target.mT).mT
    found = torch.zeros_like(target)
    for share in output_shares(gram, free):
        share.put(found, torch.linalg.solve(share.gram, share.of(target).mT).mT)
    return found


def in_groups(rows: Tensor, groups: int) -> Tensor:
    """(rows, groups x inputs) as (groups, rows, inputs)."""
    return rows.view(len(rows), groups, -1).transpose(0, 1).contiguous()


def best_scale(codes: Tensor, weight: Tensor, gram: Tensor, scale: Tensor) -> Tensor:
    """The scale of each output with which these codes come closest to what the weight gives."""
    wanted = (weight @ gram * codes).sum(-1, keepdim=True)
    size = (codes @ gram * codes).sum(-1, keepdim=True)
    found = wanted / size.clamp(min=1e-30)
    return torch.where((size > 0) & (found > 0), found, scale)
