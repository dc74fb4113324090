"""quantize/trellis: codes whose parities choose between two grids, found by a search over a trellis."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.importance.curvature import Curvature
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.methods.quantize.code_rates import contexts_of
from cortado.methods.quantize.coded_plane import CodedPlane, find_codes
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.states import LAWS
from cortado.progress import Progress
from cortado.task.task import Task

EVEN = 1


@dataclass(frozen=True)
class QuantizeTrellis(Method):
    """Dependent quantization: Schwarz et al., 2019; for networks Haase et al., 2020, and the standard ISO/IEC 15938-17.

    Two grids, even levels and odd ones, take turns by the parities of the codes before: a sequence of codes can reach any
    of the levels, yet each code chooses among half of them. A Viterbi search picks the codes with the least squared error
    plus bits, errors weighted by the curvature of the outputs and bits counted as the coder will find them, by how large the
    weights of a row, column and tap are. All weights together have one ratio of error to bits: a weight's scale falls with
    the root of its curvature (Choi et al., 2017, weight errors so). Masks stay; the remaining weights are coded as one
    sequence. Exports see an even grid.
    """

    lossy = True
    needs = (Need("a weight that is not all zeros", lambda method, view, task: method.chosen(view)),)
    leaves = (Leaves.CODES, Leaves.ZEROS)

    step: float = knob(
        0.5, low=1e-4, high=10.0, help="distance of two levels of a grid, in root mean squares of the weights"
    )
    states: int = knob(8, one_of=(EVEN, *LAWS), help="states of the machine; more search longer; 1: one even grid")
    bit_cost: float = knob(0.09, low=0.0, high=10.0, help="squared error, in steps, that a bit of the file is worth")
    by: str = knob(
        "sensitivity", one_of=("sensitivity", "weight"),
        help="what a weight's step follows: its curvature on the calibration data, or its values alone",
    )  # fmt: skip
    per: str = knob(
        "tensor", one_of=("tensor", "channel"), help="granularity of the scales; a channel's is a power of two apart"
    )
    rounds: int = knob(2, low=1, high=10, help="searches, each with the rates of the codes before")

    def apply(self, view: View, task: Task) -> None:
        weights = self.chosen(view)
        self.code(weights, self.importances(weights, view, task), view.progress)

    def code(self, weights: list[Weight], importances: list[Tensor], progress: Progress) -> None:
        """Give weights their codes; `importances` (shapes of the weights) weigh the squared errors of their entries."""
        planes = [planes_of(one, found, self.per) for one, found in zip(weights, importances, strict=True)]
        every = [plane for some in planes for plane in some]
        # Two grids are one shifted by half a step against the other.
        law, halves = LAWS.get(self.states), 1 if self.states == EVEN else 2
        self.set_scales(every, self.step / halves)
        find_codes(every, law, self.bit_cost * halves**2, self.rounds, progress)
        for weight, some in zip(weights, planes, strict=True):
            left = iter(some)
            weight.map_values(lambda values, left=left: next(left).form().to(values.device))  # type: ignore[misc]

    def chosen(self, view: View) -> list[Weight]:
        """Return the weights to round, low-rank ones as their factors."""
        return [weight for weight in view.pieces(self.where) if bool(weight.dense().any())]

    def importances(self, weights: list[Weight], view: View, task: Task) -> list[Tensor]:
        """Return the weight of each entry's squared error, of the shape of its weight."""
        if self.by == "weight":
            return [by_size(weight.dense().float(), self.per) for weight in weights]
        runs, run = view.as_run(weights)
        found = drawn_to_mean(Curvature().diagonal(run, runs, task))
        return [weight.form.pooled(one) for weight, one in zip(weights, found, strict=True)]

    def set_scales(self, planes: list[CodedPlane], apart: float) -> None:
        """Give each plane its scales: on average over all entries `apart` root mean squares."""
        count = sum(plane.values.numel() for plane in planes)
        unit = sum(plane.values.numel() * plane.relative_size() for plane in planes) / count
        for plane in planes:
            plane.set_scale(apart * 2.0**unit)


def drawn_to_mean(curvature: list[Tensor]) -> list[Tensor]:
    """Return the curvature of each weight, drawn to its mean; a weight that no sample reaches has the least of the others."""
    least = min((float(one.mean()) for one in curvature if bool(one.any())), default=1.0)
    return [
        one + Curvature.shrink * one.mean() if bool(one.any()) else torch.full_like(one, least) for one in curvature
    ]


def by_size(values: Tensor, per: str) -> Tensor:
    """Return the reciprocal mean square of a weight, or of each index of axis 0, in the shape of the weight."""
    axes = tuple(range(1 if per == "channel" else 0, values.dim()))
    squares = values.square().mean(axes, keepdim=True) if axes else values.square()
    return squares.clamp(min=1e-3 * float(squares.mean())).reciprocal().expand(values.shape)


def planes_of(weight: Weight, importance: Tensor, per: str) -> list[CodedPlane]:
    """Return a plane for each tensor of floats that the form of a weight holds, in its order."""
    found: list[CodedPlane] = []
    support, each, where = (
        weight.form.support(),
        importance.float().cpu(),
        contexts_of(weight.dense().float().cpu().abs()),
    )
    inside = None if support is None else support.cpu()

    def note(values: Tensor) -> Form:
        here = values.detach().cpu()
        if here.shape == weight.shape:
            found.append(CodedPlane(here, each, where, per))
        elif inside is not None and here.numel() == int(inside.sum()):
            found.append(CodedPlane(here, each[inside], where[inside], per))
        else:
            # Base filters, whose places in the weight only the form knows.
            found.append(CodedPlane(here, each.mean().expand(here.shape), contexts_of(here.float().abs()), per))
        return Dense(values)

    weight.form.map_values(note)
    return found
