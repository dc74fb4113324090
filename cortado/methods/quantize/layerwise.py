"""Layerwise: quantize one layer after another so that its outputs are preserved, on inputs that are quantized already."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cortado.layers.kinds import is_known_matrix
from cortado.methods.method import Method
from cortado.methods.needs import Need, matrices
from cortado.network.statistics.activations import rows_into, rows_of_layers
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Task

RIDGE = 0.01
"""Ridge, as a share of the mean second moment; it also pulls towards the current weight."""
MOST_ENTRIES = 2**23
"""Entries of per-output second moments in memory at a time."""


@dataclass(frozen=True)
class LayerProblem:
    """One layer's weight and its least-squares target, for each of its groups.

    `weight`: (groups, outputs, inputs), the optimal floats for the layer's current inputs. `inputs`: (groups, rows,
    inputs). `outputs`: (groups, rows, outputs), centred, of the original network. All float64. `free`: bool, of the
    weight's shape, false where it must stay zero; None where nothing must.
    """

    weight: Tensor
    inputs: Tensor
    outputs: Tensor
    free: Tensor | None = None

    @property
    def gram(self) -> Tensor:
        """Return the second moments of the inputs with the ridge, (groups, inputs, inputs)."""
        found = self.inputs.mT @ self.inputs / self.inputs.shape[1]
        pull = RIDGE * found.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
        return found + pull[:, None, None] * torch.eye(found.shape[-1], dtype=found.dtype)


@dataclass(frozen=True)
class Share:
    """Some outputs of one group, each with only the inputs that are free for it, first in order.

    `places`: (outputs, 1, most), the indices of these inputs. `real`: (outputs, 1, most), false where an output has
    fewer than `most`. `gram`: (outputs, most, most), per output, with the identity where nothing is real.
    """

    group: int
    outputs: slice
    places: Tensor
    real: Tensor
    gram: Tensor

    def of(self, values: Tensor) -> Tensor:
        """Gather from (groups, outputs, inputs) into (outputs, 1, most)."""
        return values[self.group, self.outputs, None].gather(2, self.places) * self.real

    def put(self, into: Tensor, values: Tensor) -> None:
        """Scatter back; the inverse of `of`."""
        into[self.group, self.outputs] += torch.zeros_like(into[self.group, self.outputs]).scatter_add(
            1, self.places[:, 0], (values * self.real)[:, 0]
        )


def output_shares(gram: Tensor, free: Tensor) -> Iterator[Share]:
    """Yield all outputs in shares that fit in memory: masks differ per output, and so do the second moments."""
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
    """A uniform grid per output: (codes - zero) x scale; scale and zero (groups, outputs, 1), codes low .. high."""

    scale: Tensor
    zero: Tensor
    low: int
    high: int

    def round(self, values: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the codes relative to the zero point."""
        levels = (values / (self.scale if scale is None else scale)).round() + self.zero
        return levels.clamp(self.low, self.high) - self.zero

    def part(self, group: int, outputs: slice) -> "Grid":
        """Return the grid of some outputs, each as its own group."""
        return Grid(self.scale[group, outputs, None], self.zero[group, outputs, None], self.low, self.high)

    @classmethod
    def over(cls, weight: Tensor, bits: int, symmetric: bool) -> "Grid":
        """Return the grid with the least squared error for each row of (groups, outputs, inputs)."""
        groups, outputs, inputs = weight.shape
        found = Quantized.of(weight.reshape(-1, inputs), bits, "channel", 0, symmetric, "mse")
        scale = found.scale.detach().double().view(groups, outputs, 1)
        if found.zero is None:
            return cls(scale, torch.zeros_like(scale), -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
        return cls(scale, found.zero.double().view(groups, outputs, 1), 0, 2**bits - 1)


Solve = Callable[[LayerProblem, Grid], tuple[Tensor, Tensor]]
"""Codes relative to the zero point, and scales (groups, outputs, 1)."""


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
    """Quantize the chosen linear layers and convolutions with the codes from `solve`, in execution order.

    `bits`: of the layer at a path. Entries outside a mask become zero codes. Low-rank and shared weights are skipped
    and listed in a note. Raises NothingChanged if no layer is chosen.
    """
    chosen = FULL_RANK.require(method, view, task)
    taken = {weight.path for _, weight in chosen}
    left = [weight.path for weight in matrices(view.weights(method.where)) if weight.path not in taken]
    data = task.calibration.first(images) if task.calibration is not None else None
    assert data is not None
    count = -(-rows // len(data))
    seeds = {path: 5003 + number for number, (path, _) in enumerate(chosen)}
    of_reference = rows_of_layers(view.reference, seeds, data, count, task)
    for (path, weight), before in zip(chosen, of_reference, strict=True):
        now = rows_into(view.network, path, data, count, task.generator(seeds[path]))
        problem = problem_of(weight, view.reference.get_submodule(path), now, before)
        grid = Grid.over(problem.weight, bits(path), symmetric)
        codes, scale = solve(problem, grid)
        shape, zero = weight.shape, None if symmetric else grid.zero.reshape(-1)
        whole = (codes + grid.zero).reshape(shape).to(torch.int32)
        place = weight.dense()
        weight.set_form(Quantized(whole, scale.reshape(-1).to(place), zero, "channel").to(place.device))
    if left:
        view.notes.append(
            f"{len(left)} weights are unchanged (made from other weights, shared, or not in a linear layer or convolution): "
            f"{', '.join(left)}."
        )


def layers_in_full_rank(method: Method, view: View, task: Task) -> list[tuple[str, Weight]]:
    """Return the chosen weights that can be quantized layerwise, in execution order, with their paths."""
    chosen = matrices(view.weights(method.where))
    by_layer = {id(layer): weight for weight in chosen for layer, _ in weight.places}
    found: dict[str, Weight] = {}
    for call in view.graph.calls:
        weight = by_layer.pop(id(call.layer), None)
        if weight is None or not is_known_matrix(call.layer):
            continue
        if weight.form.entries() == weight.shape.numel() and len(weight.places) == 1:
            found[call.path] = weight
    return list(found.items())


FULL_RANK = Need(
    "a linear layer or convolution that runs in full rank and shares its weight with no other",
    layers_in_full_rank,
    "use quantize/weights",
)


def problem_of(weight: Weight, before: nn.Module, now: Tensor, then: Tensor) -> LayerProblem:
    """Return the problem of one layer: `now` are its current inputs, `then` those of the layer `before`, row by row."""
    groups = getattr(weight.layer, "groups", 1)
    old = weight.dense().double().cpu().flatten(1)
    wanted = before.weight.detach().double().cpu().flatten(1)  # type: ignore[operator, union-attr]
    split = [one.view(groups, -1, one.shape[1]) for one in (old, wanted)]
    inputs, seen = (in_groups(one - one.mean(0), groups) for one in (now, then))
    outputs = seen @ split[1].mT
    support = weight.form.support()
    free = None if support is None else support.cpu().flatten(1).view_as(split[0])
    original = LayerProblem(split[0], inputs, outputs, free)
    gram = original.gram
    seen_together = inputs.mT @ inputs / inputs.shape[1]
    target = outputs.mT @ inputs / inputs.shape[1] + split[0] @ (gram - seen_together)
    return replace(original, weight=least_squares(gram, target, free))


def least_squares(gram: Tensor, target: Tensor, free: Tensor | None) -> Tensor:
    """Solve for (groups, outputs, inputs) with `gram @ solution = target` on the free entries, zero elsewhere."""
    if free is None:
        return torch.linalg.solve(gram, target.mT).mT
    found = torch.zeros_like(target)
    for share in output_shares(gram, free):
        share.put(found, torch.linalg.solve(share.gram, share.of(target).mT).mT)
    return found


def in_groups(rows: Tensor, groups: int) -> Tensor:
    """Reshape (rows, groups x inputs) to (groups, rows, inputs)."""
    return rows.view(len(rows), groups, -1).transpose(0, 1).contiguous()


def best_scale(codes: Tensor, weight: Tensor, gram: Tensor, scale: Tensor) -> Tensor:
    """Return the scale of each output that minimises the output error for these codes."""
    wanted = (weight @ gram * codes).sum(-1, keepdim=True)
    size = (codes @ gram * codes).sum(-1, keepdim=True)
    found = wanted / size.clamp(min=1e-30)
    return torch.where((size > 0) & (found > 0), found, scale)
