"""quantize/compact_binary: train with signs in all layers, and activations as sums of signs."""

from dataclasses import dataclass

from torch import Tensor

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.binary_net import signs_of_inputs
from cortado.methods.quantize.places import (
    NEW_ROUNDING,
    SIGNS,
    Rounding,
    WeightForms,
    attach_weights,
    round_activations,
)
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
    needs = (SIGNS, NEW_ROUNDING)
    leaves = (Leaves.CODES, Leaves.SIGNS)

    terms: int = knob(2, low=0, high=8, help="scaled signs per activation; 0 leaves activations in floats")
    smooth: bool = knob(False, help="use a tent-shaped gradient for signs (Liu et al., 2018)")
    scale: str = knob("none", one_of=SCALES, help="scale of the signs of weights")
    last: bool = knob(True, help="last layer's weights as signs with one learned scale; otherwise of edges bits")
    edges: int = knob(8, low=2, high=8, help="bits of the first layer's weights, and of the last one's without last")

    def apply(self, view: View, task: Task) -> None:
        rounding = self.rounding(view)
        if rounding is not None:
            round_activations(self, view, task, rounding)
        attach_weights(self, view, task)

    def rounding(self, view: View) -> Rounding | None:
        """Return the sums of signs of inputs, None if they stay floats."""
        if not self.terms:
            return None
        return signs_of_inputs(self, view, scaled=True, smooth=self.smooth, terms=self.terms)

    def weight_forms(self) -> WeightForms:
        """Return signs, and a grid for the first layer."""

        def inner(values: Tensor) -> Binary:
            # A vector, such as a mask's remaining weights, has one scale.
            return Binary(values, "tensor" if self.scale == "channel" and values.dim() < 2 else self.scale)

        return WeightForms(
            inner,
            lambda values: LearnedStep.of(values, self.edges),
            (lambda values: Binary(values, "learned")) if self.last else None,
        )
