"""Targets: the layers that can be factored, with the positions at which they run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.layers.kinds import is_convolution, is_known_matrix
from cortado.methods.needs import Need
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task

Positions = tuple[tuple[int, ...], tuple[int, ...], int]
"""Sizes of the spatial axes before and after a call, and how often a linear layer runs in it."""


@dataclass(frozen=True)
class Target:
    """A linear layer or ungrouped convolution that was called; `runs` are the positions of its calls."""

    weight: Weight
    runs: tuple[Positions, ...]

    @property
    def path(self) -> str:
        return self.weight.layer_path

    @property
    def layer(self) -> Any:
        return self.weight.layer

    @property
    def shape(self) -> torch.Size:
        return self.weight.shape

    @property
    def flat(self) -> Tensor:
        """The weight as (outputs, inputs x taps), in float32 or float64."""
        return working(self.weight.dense()).flatten(1)

    @property
    def dense_cost(self) -> int:
        """Multiply-adds of the original layer on the example."""
        return sum(self.shape.numel() * position_count(after) * times for _, after, times in self.runs)

    def cost(self, form: LowRank) -> int:
        """Return the multiply-adds of the same layer in `form`."""
        return sum(form.multiply_adds(before, after) * times for before, after, times in self.runs)


def working(value: Tensor) -> Tensor:
    """Return the value in at least float32: half precision is too coarse for solvers."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def position_count(sizes: tuple[int, ...]) -> int:
    """Return the number of positions."""
    count = 1
    for size in sizes:
        count *= size
    return count


def find_targets(view: View, where: str) -> list[Target]:
    """Return the targets that `where` selects, in order of their first call."""
    weights = [
        w for w in view.weights(where) if all(name == "weight" and can_factor(layer) for layer, name in w.places)
    ]
    found: dict[str, Target] = {}
    by_layer = {id(layer): weight for weight in weights for layer, _ in weight.places}
    for call in view.graph.calls:
        weight = by_layer.get(id(call.layer))
        if weight is None or not call.inputs or not call.outputs or not weight.shape.numel():
            continue
        axes = len(weight.shape) - 2
        before, after = call.inputs[0], call.outputs[0]
        run: Positions = ((), (), position_count(before[:-1]))
        if axes:
            run = (before[-axes:], after[-axes:], position_count(before[: -axes - 1]))
        runs = found[weight.path].runs if weight.path in found else ()
        found[weight.path] = Target(weight, (*runs, run))
    return list(found.values())


def target_need(what: str, suits: Callable[[Any, Target], bool]) -> Need[list[Target]]:
    """Return the need for targets of a kind; `suits(method, target)` says whether one is."""

    def suiting(method: Any, view: View, task: Task) -> list[Target]:
        return [target for target in find_targets(view, method.where) if suits(method, target)]

    return Need(what, suiting)


def has_taps(target: Target) -> bool:
    """Return whether a target is a convolution whose kernel is larger than one position."""
    return any(size > 1 for size in target.shape[2:])


LAYERS = target_need(
    "a linear layer, or an ungrouped, zero-padded convolution, that is called", lambda method, target: True
)
KERNELS = target_need(
    "an ungrouped, zero-padded convolution, that is called, with a kernel larger than 1 x 1",
    lambda method, target: has_taps(target),
)


def can_factor(layer: Any) -> bool:
    """Return whether a layer can run as factors: exactly a known class (no subclass), ungrouped, zero-padded."""
    grouped = is_convolution(layer) and (layer.groups != 1 or layer.padding_mode != "zeros")
    return is_known_matrix(layer) and not grouped


def sketch(*shapes: tuple[int, ...], depthwise: tuple[int, ...] = ()) -> LowRank:
    """Return factors of these shapes without values, to count their cost; `depthwise` are the indices of depthwise ones."""
    return chain([torch.empty(shape, device="meta") for shape in shapes], depthwise)


def chain(kernels: list[Tensor], depthwise: tuple[int, ...] = ()) -> LowRank:
    """Return kernels in sequence as one form, the first two innermost; those at `depthwise` have one group per channel."""
    made: Any = Dense(kernels[0])
    for place, kernel in enumerate(kernels[1:], 1):
        made = LowRank(made, Dense(kernel), last_groups=kernel.shape[0] if place in depthwise else 1)
    return made
