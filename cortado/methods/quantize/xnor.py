"""quantize/xnor: weights seen as signs times one scale a channel while the network trains, and activations too if asked."""

from dataclasses import dataclass

from cortado.methods.method import Method, knob
from cortado.methods.quantize.binary_net import sign_inputs
from cortado.methods.quantize.places import attach_weights
from cortado.network.view import View
from cortado.parts.forms.binary import Binary
from cortado.parts.forms.learned_step import LearnedStep
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeXnor(Method):
    """XNOR-Net, and with activations=False binary weight networks (BWN): Rastegari et al., 2016.  Train afterwards (finetune).

    A weight is seen as its sign times the mean size of its output channel; an activation as its signs, times the mean size of
    the sample's values with `scaled`. Layers want a batch norm before the signs (norm, sign, convolution). The first and
    the last product keep their activations, and have weights of `edges` bits.
    """

    lossy = True

    activations: bool = knob(True, help="activations too; else only weights (BWN)")
    scaled: bool = knob(False, help="scale the signs of each sample by the mean size of its values")
    smooth: bool = knob(False, help="gradient of a sign in the shape of a tent (Liu et al., 2018)")
    edges: int = knob(8, low=2, high=8, help="bits of the first and the last product's weights")

    def apply(self, view: View, task: Task) -> None:
        if self.activations:
            sign_inputs(self, view, task, self.scaled, self.smooth)
        attach_weights(
            self,
            view,
            lambda values: Binary(values, "channel" if values.dim() > 1 else "tensor"),
            lambda values: LearnedStep.of(values, self.edges),
        )
