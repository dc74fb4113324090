"""quantize/binary_connect: weights of -1 and +1 in every pass of the training, floats behind them."""

from dataclasses import dataclass

from cortado.methods.method import Method, knob
from cortado.methods.quantize.places import attach_weights
from cortado.network.view import View
from cortado.parts.forms.binary import SCALES, Binary
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeBinaryConnect(Method):
    """BinaryConnect: Courbariaux et al., 2015.  Train afterwards (finetune), in a network with norms; finalize ends it.

    Weights pass as their signs, or with `stochastic` as +1 with the probability clip((w + 1) / 2, 0, 1); gradients
    reach the floats, which stay within -1..1. At inference the signs serve. The paper has every layer binary.
    """

    lossy = True

    stochastic: bool = knob(False, help="draw the signs while training")
    scale: str = knob("none", one_of=SCALES, help="what the signs are multiplied with: 1, mean sizes, or one learned")

    def apply(self, view: View, task: Task) -> None:
        def binary(values: object) -> Binary:
            return Binary(values, self.scale, self.stochastic)  # type: ignore[arg-type]

        attach_weights(self, view, binary, binary)
