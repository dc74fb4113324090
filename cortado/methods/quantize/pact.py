"""quantize/pact: train with activations clipped at a learned value, and DoReFa weights."""

from dataclasses import dataclass

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.activations import bits_for, grid_over
from cortado.methods.quantize.places import (
    NEW_ROUNDING,
    Rounding,
    WeightForms,
    attach_weights,
    edges_of,
    note_quantizers,
    round_activations,
)
from cortado.network.quantizers.placement import QuantizerSite
from cortado.network.statistics.ranges import RANGES, ObservedRange
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.pact import Pact
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.squashed import Squashed
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizePact(Method):
    """Parameterized clipping activation (PACT), Choi et al., 2018.  Train afterwards (finetune) with decay; finalize ends it.

    Non-negative activations are clipped to 0 .. a learned value, whose gradient comes from the clipped entries and
    which weight decay reduces. Other activations have grids with learned steps. Weights are DoReFa's, squashed into
    -1..1 at any scale, so layers need a batch norm behind them. The first and last layer, and activations that are only
    summed, have `edges` bits.
    """

    lossy = True
    needs = (NEW_ROUNDING,)
    leaves = (Leaves.CODES, Leaves.ROUNDED)

    bits: int = knob(4, low=1, high=8, help="bits of weights")
    activations: int = knob(4, low=1, high=8, help="bits of the activations that matmul layers read")
    edges: int = knob(
        8, low=2, high=8, help="bits of the first and last layer, and of activations that are only summed"
    )
    range: str = knob("mse", one_of=tuple(RANGES), help="initial clipping: all observed values, or a clipped range")
    images: int = knob(512, low=1, help="calibration samples for the initial clipping")
    batch: int = knob(64, low=1, help="batch size for calibration")

    def apply(self, view: View, task: Task) -> None:
        note_quantizers(view, *round_activations(self, view, task, self.rounding(view)))
        attach_weights(self, view, task)

    def weight_forms(self) -> WeightForms:
        """Return DoReFa's forms of weights."""
        return WeightForms(
            lambda values: Squashed(values, self.bits),
            lambda values: LearnedStep.of(values, max(self.edges, self.bits)),
        )

    def rounding(self, view: View) -> Rounding:
        """Return the clipping of each activation that is never negative, and the grid of each other one."""
        edges = edges_of(view)

        def quantizer(site: QuantizerSite, observed: ObservedRange) -> Affine | Pact:
            width = bits_for(site, edges, self.activations, self.edges, self.edges)
            found = grid_over(observed, width, self.range)
            if observed.low < 0 or observed.high <= 0:
                return found
            return Pact(found.size.detach() * found.top, width)

        return Rounding(quantizer, self.images, self.batch)
