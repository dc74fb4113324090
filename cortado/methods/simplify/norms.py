"""simplify/norms: fold each batch norm's four vectors into a scale and a shift."""

from dataclasses import dataclass
from typing import Any

from cortado.errors import NothingChanged
from cortado.methods.method import Method
from cortado.network.view import View
from cortado.parts.activations.quantizer import SIDES, put_quantizer, quantizer_at
from cortado.parts.blocks.scale_shift import NORMS, ScaleShift
from cortado.parts.forms.attach import attached_names
from cortado.task.task import Task


@dataclass(frozen=True)
class SimplifyNorms(Method):
    """Fold mean and variance of every batch norm into a scale and a shift per channel: y = scale x + shift.

    In eval mode the network computes the same, up to rounding. The file holds two vectors instead of four, which can be
    rounded. Later training learns scale and shift and gathers no statistics.
    """

    def apply(self, view: View, task: Task) -> None:
        chosen = {id(layer) for weight in view.weights(self.where) for layer, _ in weight.places}
        # A gain or shift shared by two norms cannot absorb the statistics of both.
        shared = {id(layer) for weight in view.all_weights if len(weight.places) > 1 for layer, _ in weight.places}
        ready = {
            path: layer
            for path, layer in view.network.named_modules()
            if path and can_fold(layer) and id(layer) not in shared and (self.where == "*" or id(layer) in chosen)
        }
        if not ready:
            raise NothingChanged(f"{self.name()}: the network has no batch norm with statistics here. Leave it out.")
        for path, norm in ready.items():
            block = ScaleShift.of(norm)
            for side in SIDES:
                quantizer = quantizer_at(norm, side)
                if quantizer is not None:
                    put_quantizer(block, side, quantizer)
            view.wrap(path, block)


def can_fold(layer: Any) -> bool:
    """Return whether a layer is torch's own batch norm with statistics, without forms."""
    return type(layer) in NORMS and layer.running_mean is not None and not attached_names(layer)
