"""quantize/aware: quantize weights and activations during training, with learned steps."""

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
from cortado.network.statistics.ranges import ObservedRange
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.forms.learned_step import LearnedStep
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeAware(Method):
    """Learned step size quantization (LSQ), Esser et al., 2020.  Train afterwards (finetune); finalize ends it.

    Weights stay floats but pass through a grid of 2**bits levels around zero, activations through grids of
    2**activations levels. Steps start at the least squared error and are trained with the network. The first and last
    layer have `edges` bits, as in the paper, and so do activations that are only summed or averaged.
    """

    lossy = True
    needs = (NEW_ROUNDING,)
    leaves = (Leaves.CODES, Leaves.ROUNDED)

    bits: int = knob(4, low=2, high=8, help="bits of weights")
    activations: int = knob(
        4, low=0, high=8, help="bits of the activations that matmul layers read; 0 leaves activations in floats"
    )
    edges: int = knob(
        8, low=2, high=8, help="bits of the first and last layer, and of activations that are only summed"
    )
    per: str = knob("tensor", one_of=("tensor", "channel"), help="granularity of the weights' steps")
    images: int = knob(512, low=1, help="calibration samples for the initial steps")
    batch: int = knob(64, low=1, help="batch size for calibration")

    def apply(self, view: View, task: Task) -> None:
        rounding = self.rounding(view)
        if rounding is not None:
            note_quantizers(view, *round_activations(self, view, task, rounding))
        attach_weights(self, view, task)

    def weight_forms(self) -> WeightForms:
        """Return the grids of weights, with learned steps."""
        outer = max(self.bits, self.edges)
        return WeightForms(
            lambda values: LearnedStep.of(values, self.bits, self.per if values.dim() > 1 else "tensor"),
            lambda values: LearnedStep.of(values, outer, self.per if values.dim() > 1 else "tensor"),
        )

    def rounding(self, view: View) -> Rounding | None:
        """Return the grid of each activation, None if they stay floats."""
        edges = edges_of(view)

        def quantizer(site: QuantizerSite, observed: ObservedRange) -> Affine:
            return grid_over(observed, bits_for(site, edges, self.activations, self.edges, self.edges), "mse")

        return Rounding(quantizer, self.images, self.batch) if self.activations else None
