"""quantize/aware: let weights and signals be seen rounded while the network trains, with steps that are learned."""

from dataclasses import dataclass

from cortado.forms.learned_step import LearnedStep
from cortado.method import Method, knob
from cortado.methods.quantize.places import edges_of, hold_weights, note_signals, round_signals
from cortado.methods.quantize.signals import bits_for, grid
from cortado.network.ranges import Reach
from cortado.network.rounding import Wish
from cortado.network.view import View
from cortado.signals.affine import Affine
from cortado.task import Task


@dataclass(frozen=True)
class QuantizeAware(Method):
    """Learned step size quantization: LSQ, Esser et al., 2020.  Train afterwards (tune); settle ends it.

    Weights become floats that the network sees on a grid of 2**bits levels around zero, signals pass on grids of
    2**signals levels; all steps start at the least squared error and learn with the network. The first and the last
    product keep `edges` bits, as in the paper, and what is only summed or averaged as many.
    """

    lossy = True

    bits: int = knob(4, low=2, high=8, says="bits of weights")
    signals: int = knob(4, low=0, high=8, says="bits of the signals that products read; 0 leaves signals as they are")
    edges: int = knob(8, low=2, high=8, says="bits of the first and last product, and of what is only summed")
    per: str = knob("tensor", one_of=("tensor", "channel"), says="what one step of the weights serves")
    images: int = knob(512, low=1, says="calibration samples that the first steps are found with")
    batch: int = knob(64, low=1, says="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        edges, outer = edges_of(view), max(self.bits, self.edges)
        if self.signals:

            def signal(wish: Wish, reach: Reach) -> Affine:
                return grid(reach, bits_for(wish, edges, self.signals, self.edges, self.edges), "mse")

            note_signals(view, *round_signals(self, view, task, self.images, self.batch, signal))
        hold_weights(
            self,
            view,
            lambda values: LearnedStep.of(values, self.bits, self.per if values.dim() > 1 else "tensor"),
            lambda values: LearnedStep.of(values, outer, self.per if values.dim() > 1 else "tensor"),
        )
