"""quantize/compact_binary: signs all through to the last layer, activations as sums of signs, while the network trains."""

from dataclasses import dataclass

from torch import Tensor

from cortado.methods.method import Method, knob
from cortado.methods.quantize.binary_net import sign_inputs
from cortado.methods.quantize.places import attach_weights
from cortado.network.view import View
from cortado.parts.forms.binary import SCALES, Binary
from cortado.parts.forms.learned_step import LearnedStep
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeCompactBinary(Method):
    """A compact binary network: Tang, Hua, Wang, 2017.  Train afterwards (finetune penalty=bipolar, with a low rate).

    The paper's tricks, each by itself: weights without scales (`scale: none`), whose part the norms or PReLUs of the
    network take; activations as sums of `terms` scaled signs; the last product's weights as signs too, with one learned
    scale (`last`). The pull of the floats to -1 and 1 is the penalty bipolar, the low rate a matter of the training.
    The first product has weights of `edges` bits; it and the last one read activations as they are.
    """

    lossy = True

    terms: int = knob(
        2, low=0, high=8, help="scaled signs that make up an activation; 0 leaves activations as they are"
    )
    smooth: bool = knob(False, help="gradient of a sign in the shape of a tent (Liu et al., 2018)")
    scale: str = knob("none", one_of=SCALES, help="what the signs of weights are multiplied with")
    last: bool = knob(True, help="the last product's weights as signs with one learned scale; else of edges bits")
    edges: int = knob(8, low=2, high=8, help="bits of the first product's weights, and of the last one's")

    def apply(self, view: View, task: Task) -> None:
        if self.terms:
            sign_inputs(self, view, task, scaled=True, smooth=self.smooth, terms=self.terms)

        def inner(values: Tensor) -> Binary:
            # A vector, as the survivors of a mask are, has one scale.
            return Binary(values, "tensor" if self.scale == "channel" and values.dim() < 2 else self.scale)

        attach_weights(
            self,
            view,
            inner,
            lambda values: LearnedStep.of(values, self.edges),
            (lambda values: Binary(values, "learned")) if self.last else None,
        )
