"""quantize/binary_connect: weights of -1 and +1 in every pass of the training, floats behind them."""

from dataclasses import dataclass

from cortado.forms.binary import SCALES, Binary
from cortado.method import Method, knob
from cortado.methods.quantize.places import hold_weights
from cortado.network.view import View
from cortado.task import Task


@dataclass(frozen=True)
class QuantizeBinaryConnect(Method):
    """BinaryConnect: Courbariaux et al., 2015.  Train afterwards (tune), in a network with norms; settle ends it.

    Weights pass as their signs, or with `stochastic` as +1 with the probability clip((w + 1) / 2, 0, 1); gradients
    reach the floats, which stay within -1..1. At inference the signs serve. The paper has every layer binary.
    """

    lossy = True

    stochastic: bool = knob(False, says="draw the signs while training")
    scale: str = knob("none", one_of=SCALES, says="what the signs are multiplied with: 1, mean sizes, or one learned")

    def apply(self, view: View, task: Task) -> None:
        def binary(values: object) -> Binary:
            return Binary(values, self.scale, self.stochastic)  # type: ignore[arg-type]

        hold_weights(self, view, binary, binary)
