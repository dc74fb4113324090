"""quantize/aware: let weights and activations be seen rounded while the network trains, with steps that are learned."""

from dataclasses import dataclass

from cortado.methods.method import Method, knob
from cortado.methods.quantize.activations import bits_for, grid_over
from cortado.methods.quantize.places import attach_weights, edges_of, note_quantizers, quantize_activations
from cortado.network.quantizers.placement import QuantizerSite
from cortado.network.statistics.ranges import ObservedRange
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.forms.learned_step import LearnedStep
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeAware(Method):
    """Learned step size quantization: LSQ, Esser et al., 2020.  Train afterwards (finetune); finalize ends it.

    Weights become floats that the network sees on a grid of 2**bits levels around zero, activations pass on grids of
    2**activations levels; all steps start at the least squared error and learn with the network. The first and the last
    product keep `edges` bits, as in the paper, and what is only summed or averaged as many.
    """

    lossy = True

    bits: int = knob(4, low=2, high=8, help="bits of weights")
    activations: int = knob(
        4, low=0, high=8, help="bits of the activations that products read; 0 leaves activations as they are"
    )
    edges: int = knob(8, low=2, high=8, help="bits of the first and last product, and of what is only summed")
    per: str = knob("tensor", one_of=("tensor", "channel"), help="what one step of the weights serves")
    images: int = knob(512, low=1, help="calibration samples that the first steps are found with")
    batch: int = knob(64, low=1, help="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        edges, outer = edges_of(view), max(self.bits, self.edges)
        if self.activations:

            def quantizer(site: QuantizerSite, observed: ObservedRange) -> Affine:
                return grid_over(observed, bits_for(site, edges, self.activations, self.edges, self.edges), "mse")

            note_quantizers(view, *quantize_activations(self, view, task, self.images, self.batch, quantizer))
        attach_weights(
            self,
            view,
            lambda values: LearnedStep.of(values, self.bits, self.per if values.dim() > 1 else "tensor"),
            lambda values: LearnedStep.of(values, outer, self.per if values.dim() > 1 else "tensor"),
        )
