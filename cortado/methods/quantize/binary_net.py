"""quantize/binary_net: weights and signals of -1 and +1 while the network trains."""

from dataclasses import dataclass

from cortado.errors import BadNetwork
from cortado.forms.binary import Binary
from cortado.forms.learned_step import LearnedStep
from cortado.method import Method, knob
from cortado.methods.quantize.places import edges_of, hold_weights, round_signals
from cortado.network.ranges import Reach
from cortado.network.rounding import Wish
from cortado.network.view import View
from cortado.signals.sign import Sign
from cortado.task import Task


@dataclass(frozen=True)
class QuantizeBinaryNet(Method):
    """Binarized neural networks: Courbariaux and Bengio, 2016.  Train afterwards (tune); settle ends it.

    What a product reads passes as its signs, and so do its weights; gradients pass inside -1..1. Layers want a batch
    norm before the signs, and no ReLU, behind which every sign is the same. The first and the last product keep their
    signals, and have weights of `edges` bits.
    """

    lossy = True

    stochastic: bool = knob(False, says="draw the signs of weights while training")
    edges: int = knob(8, low=2, high=8, says="bits of the first and the last product's weights")

    def apply(self, view: View, task: Task) -> None:
        sign_inputs(self, view, task)
        hold_weights(
            self,
            view,
            lambda values: Binary(values, "none", self.stochastic),
            lambda values: LearnedStep.of(values, self.edges),
        )


def sign_inputs(
    method: Method, view: View, task: Task, scaled: bool = False, smooth: bool = False, terms: int = 1
) -> None:
    """Let the signs of what the chosen products read go in, but for the first and the last one.

    Each product takes the signs itself, so that a shortcut beside it goes on with the floats (Liu et al., 2018).
    Raises BadNetwork for a signal that is never negative, or never positive, on the calibration data.
    """
    edges = edges_of(view)

    def signal(wish: Wish, reach: Reach) -> Sign | None:
        if not wish.readers or edges & set(wish.readers):
            return None
        if reach.low >= 0 or reach.high < 0:
            never = "negative" if reach.low >= 0 else "positive"
            raise BadNetwork(
                f"{method.name()}: what {wish.readers[0]} reads is never {never}, so that all its signs are the same. "
                "Leave out the ReLU before it, leave the layer out with where, or take quantize/dorefa signals=1."
            )
        return Sign(scaled, smooth, terms)

    round_signals(method, view, task, 512, 64, signal, at_readers=True)
