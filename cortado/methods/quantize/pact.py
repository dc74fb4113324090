"""quantize/pact: activations clipped at an end that is learned, weights squashed and rounded, while the network trains."""

from dataclasses import dataclass

from cortado.methods.method import Method, knob
from cortado.methods.quantize.activations import bits_for, grid_over
from cortado.methods.quantize.places import attach_weights, edges_of, note_quantizers, quantize_activations
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
    """Parameterized clipping activation: PACT, Choi et al., 2018.  Train afterwards (finetune) with decay; finalize ends it.

    An activation that is never negative passes between 0 and an end that learns: its gradient is what is clipped, and the
    weight decay pulls it in. Other activations have grids with learned steps. Weights are DoReFa's, squashed into -1..1
    whatever their size was, so that layers want a batch norm behind them. The first and the last product, and what is
    only summed, keep `edges` bits.
    """

    lossy = True

    bits: int = knob(4, low=1, high=8, help="bits of weights")
    activations: int = knob(4, low=1, high=8, help="bits of the activations that products read")
    edges: int = knob(8, low=2, high=8, help="bits of the first and last product, and of what is only summed")
    range: str = knob("mse", one_of=tuple(RANGES), help="where the ends begin: all that was seen, or less")
    images: int = knob(512, low=1, help="calibration samples that the first ends are found with")
    batch: int = knob(64, low=1, help="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        edges = edges_of(view)

        def quantizer(site: QuantizerSite, observed: ObservedRange) -> Affine | Pact:
            width = bits_for(site, edges, self.activations, self.edges, self.edges)
            found = grid_over(observed, width, self.range)
            if observed.low < 0 or observed.high <= 0:
                return found
            return Pact(found.size.detach() * found.top, width)

        note_quantizers(view, *quantize_activations(self, view, task, self.images, self.batch, quantizer))
        attach_weights(
            self,
            view,
            lambda values: Squashed(values, self.bits),
            lambda values: LearnedStep.of(values, max(self.edges, self.bits)),
        )
