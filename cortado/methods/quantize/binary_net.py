"""quantize/binary_net: train with weights and activations of -1 and +1."""

from dataclasses import dataclass

from cortado.errors import BadNetwork
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.places import (
    NEW_ROUNDING,
    SIGNS,
    Rounding,
    WeightForms,
    attach_weights,
    edges_of,
    round_activations,
)
from cortado.network.quantizers.placement import QuantizerSite
from cortado.network.statistics.ranges import ObservedRange
from cortado.network.view import View
from cortado.parts.activations.sign import Sign
from cortado.parts.forms.binary import Binary
from cortado.parts.forms.learned_step import LearnedStep
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeBinaryNet(Method):
    """Binarized neural networks, Courbariaux and Bengio, 2016.  Train afterwards (finetune); finalize ends it.

    Matmul layers read the signs of their inputs and use the signs of their weights; gradients pass within -1..1. Put a
    batch norm before the signs and no ReLU, after which all signs are equal. The first and last layer keep float
    activations and have weights of `edges` bits.
    """

    lossy = True
    needs = (SIGNS, NEW_ROUNDING)
    leaves = (Leaves.CODES, Leaves.SIGNS)

    stochastic: bool = knob(False, help="draw the signs of weights at random during training")
    edges: int = knob(8, low=2, high=8, help="bits of the first and last layer's weights")

    def apply(self, view: View, task: Task) -> None:
        round_activations(self, view, task, self.rounding(view))
        attach_weights(self, view, task)

    def rounding(self, view: View) -> Rounding:
        """Return the signs of inputs."""
        return signs_of_inputs(self, view)

    def weight_forms(self) -> WeightForms:
        """Return the signs of weights, and a grid for the first and last layer."""
        return WeightForms(
            lambda values: Binary(values, "none", self.stochastic),
            lambda values: LearnedStep.of(values, self.edges),
        )


def signs_of_inputs(method: Method, view: View, scaled: bool = False, smooth: bool = False, terms: int = 1) -> Rounding:
    """Return the rounding of the inputs of the chosen layers, except the first and last layer, to their signs.

    Each layer binarizes its own input, so that a parallel shortcut keeps the floats (Liu et al., 2018). It raises
    BadNetwork for an activation that is never negative, or never positive, on the calibration data.
    """
    edges = edges_of(view)

    def quantizer(site: QuantizerSite, observed: ObservedRange) -> Sign | None:
        if not site.readers or edges & set(site.readers):
            return None
        if observed.low >= 0 or observed.high < 0:
            never = "negative" if observed.low >= 0 else "positive"
            raise BadNetwork(
                f"{method.name()}: the input of {site.readers[0]} is never {never}, so all its signs are the same. "
                "Remove the ReLU before it, exclude the layer with where, or use quantize/dorefa activations=1."
            )
        return Sign(scaled, smooth, terms)

    return Rounding(quantizer, 512, 64, at_readers=True)
