"""quantize/compact_binary: train with signs in all layers, and activations as sums of signs."""

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
    """A compact binary network, Tang, Hua, Wang, 2017.  Train afterwards (finetune with the objective bipolar, with a low lr).

    The paper's tricks, each with its own knob: weights without scales (`scale: none`), which norms or PReLUs replace;
    activations as sums of `terms` scaled signs; binary weights in the last layer too, with one learned scale (`last`).
    The objective bipolar pulls the latent floats to -1 and 1. The first layer has weights of `edges` bits; it and the
    last layer read float activations.
    """

    lossy = True

    terms: int = knob(2, low=0, high=8, help="scaled signs per activation; 0 leaves activations in floats")
    smooth: bool = knob(False, help="use a tent-shaped gradient for signs (Liu et al., 2018)")
    scale: str = knob("none", one_of=SCALES, help="scale of the signs of weights")
    last: bool = knob(True, help="last layer's weights as signs with one learned scale; otherwise of edges bits")
    edges: int = knob(8, low=2, high=8, help="bits of the first layer's weights, and of the last one's without last")

    def apply(self, view: View, task: Task) -> None:
        if self.terms:
            sign_inputs(self, view, task, scaled=True, smooth=self.smooth, terms=self.terms)

        def inner(values: Tensor) -> Binary:
            # A vector, such as a mask's remaining weights, has one scale.
            return Binary(values, "tensor" if self.scale == "channel" and values.dim() < 2 else self.scale)

        attach_weights(
            self,
            view,
            inner,
            lambda values: LearnedStep.of(values, self.edges),
            (lambda values: Binary(values, "learned")) if self.last else None,
        )
