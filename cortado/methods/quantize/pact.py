"""quantize/pact: signals clipped at an end that is learned, weights squashed and rounded, while the network trains."""

from dataclasses import dataclass

from cortado.forms.learned_step import LearnedStep
from cortado.forms.squashed import Squashed
from cortado.method import Method, knob
from cortado.methods.quantize.places import edges_of, hold_weights, note_signals, round_signals
from cortado.methods.quantize.signals import bits_for, grid
from cortado.network.ranges import RANGES, Reach
from cortado.network.rounding import Wish
from cortado.network.view import View
from cortado.signals.affine import Affine
from cortado.signals.pact import Pact
from cortado.task import Task


@dataclass(frozen=True)
class QuantizePact(Method):
    """Parameterized clipping activation: PACT, Choi et al., 2018.  Train afterwards (tune) with decay; settle ends it.

    A signal that is never negative passes between 0 and an end that learns: its gradient is what is clipped, and the
    weight decay pulls it in. Other signals have grids with learned steps. Weights are DoReFa's, squashed into -1..1
    whatever their size was, so that layers want a batch norm behind them. The first and the last product, and what is
    only summed, keep `edges` bits.
    """

    lossy = True

    bits: int = knob(4, low=1, high=8, says="bits of weights")
    signals: int = knob(4, low=1, high=8, says="bits of the signals that products read")
    edges: int = knob(8, low=2, high=8, says="bits of the first and last product, and of what is only summed")
    range: str = knob("mse", one_of=tuple(RANGES), says="where the ends begin: all that was seen, or less")
    images: int = knob(512, low=1, says="calibration samples that the first ends are found with")
    batch: int = knob(64, low=1, says="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        edges = edges_of(view)

        def signal(wish: Wish, reach: Reach) -> Affine | Pact:
            width = bits_for(wish, edges, self.signals, self.edges, self.edges)
            found = grid(reach, width, self.range)
            if reach.low < 0 or reach.high <= 0:
                return found
            return Pact(found.size.detach() * found.top, width)

        note_signals(view, *round_signals(self, view, task, self.images, self.batch, signal))
        hold_weights(
            self,
            view,
            lambda values: Squashed(values, self.bits),
            lambda values: LearnedStep.of(values, max(self.edges, self.bits)),
        )
