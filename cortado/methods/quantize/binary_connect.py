"""quantize/binary_connect: train with weights of -1 and +1, backed by latent floats."""

from dataclasses import dataclass

from torch import Tensor

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.places import NEW_FORM, WeightForms, attach_weights
from cortado.network.view import View
from cortado.parts.forms.binary import SCALES, Binary
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeBinaryConnect(Method):
    """BinaryConnect, Courbariaux et al., 2015.  Train afterwards (finetune), in a network with norms; finalize ends it.

    The forward pass uses the weights' signs or, with `stochastic`, +1 with probability clip((w + 1) / 2, 0, 1).
    Gradients update the latent floats, which are clipped to -1..1. Inference uses the signs. The paper binarizes every
    layer.
    """

    lossy = True
    needs = (NEW_FORM,)
    leaves = (Leaves.CODES,)

    stochastic: bool = knob(False, help="draw the signs at random during training")
    scale: str = knob("none", one_of=SCALES, help="scale of the signs: none, mean magnitudes, or learned")

    def apply(self, view: View, task: Task) -> None:
        attach_weights(self, view, task)

    def weight_forms(self) -> WeightForms:
        """Return the signs of every layer."""

        def binary(values: Tensor) -> Binary:
            return Binary(values, self.scale, self.stochastic)

        return WeightForms(binary, binary)
