"""quantize/xnor: train with weights as signs times one scale per channel, and optionally binary activations."""

from dataclasses import dataclass

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
from cortado.parts.forms.binary import Binary
from cortado.parts.forms.learned_step import LearnedStep
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeXnor(Method):
    """XNOR-Net, and with activations=False binary weight networks (BWN): Rastegari et al., 2016.  Train afterwards (finetune).

    A weight becomes its sign times the mean magnitude of its output channel; an activation its sign, times the sample's
    mean magnitude with `scaled`. Put a batch norm before the signs (norm, sign, convolution). The first and last layer
    keep float activations and have weights of `edges` bits.
    """

    lossy = True
    needs = (SIGNS, NEW_ROUNDING)
    leaves = (Leaves.CODES, Leaves.SIGNS)

    activations: bool = knob(True, help="binarize activations too; otherwise only weights (BWN)")
    scaled: bool = knob(False, help="scale each sample's signs by its mean magnitude")
    smooth: bool = knob(False, help="use a tent-shaped gradient for signs (Liu et al., 2018)")
    edges: int = knob(8, low=2, high=8, help="bits of the first and last layer's weights")

    def apply(self, view: View, task: Task) -> None:
        rounding = self.rounding(view)
        if rounding is not None:
            round_activations(self, view, task, rounding)
        attach_weights(self, view, task)

    def rounding(self, view: View) -> Rounding | None:
        """Return the signs of inputs, None if they stay floats."""
        return signs_of_inputs(self, view, self.scaled, self.smooth) if self.activations else None

    def weight_forms(self) -> WeightForms:
        """Return scaled signs, and a grid for the first and last layer."""
        return WeightForms(
            lambda values: Binary(values, "channel" if values.dim() > 1 else "tensor"),
            lambda values: LearnedStep.of(values, self.edges),
        )
