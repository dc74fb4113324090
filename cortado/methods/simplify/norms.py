"""simplify/norms: fold each batch norm's four vectors into a scale and a shift."""

from dataclasses import dataclass
from typing import Any

from cortado.layers.norm import batch_norm_class, is_batch_norm
from cortado.methods.method import Method
from cortado.methods.needs import Leaves, Need
from cortado.network.view import View
from cortado.parts.activations.quantizer import SIDES, put_quantizer, quantizer_at
from cortado.parts.blocks.block import brought_along
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.forms.attach import attached_names
from cortado.task.task import Task


def ready(method: Any, view: View, task: Task) -> dict[str, Any]:
    """Return the chosen batch norms that can be folded, by path."""
    chosen = {id(layer) for weight in view.weights(method.where) for layer, _ in weight.places}
    # A gain or shift shared by two norms cannot absorb the statistics of both.
    shared = {id(layer) for weight in view.all_weights if len(weight.places) > 1 for layer, _ in weight.places}
    inside = brought_along(view.network)
    return {
        path: layer
        for path, layer in view.network.named_modules()
        if path
        and can_fold(layer)
        and id(layer) not in shared | inside
        and (method.where == "*" or id(layer) in chosen)
    }


def can_fold(layer: Any) -> bool:
    """Return whether a layer is torch's own batch norm with statistics, without forms."""
    return type(layer) is batch_norm_class(layer) and is_batch_norm(layer) and not attached_names(layer)


NORM = Need("a batch norm with statistics, shared with no other", ready)


@dataclass(frozen=True)
class SimplifyNorms(Method):
    """Fold mean and variance of every batch norm into a scale and a shift per channel: y = scale x + shift.

    In eval mode the network computes the same, up to rounding. The file holds two vectors instead of four, which can be
    rounded. Later training learns scale and shift and gathers no statistics.
    """

    needs = (NORM,)
    leaves = (Leaves.FOLDED,)

    def apply(self, view: View, task: Task) -> None:
        for path, norm in NORM.require(self, view, task).items():
            block = ScaleShift.of(norm)
            for side in SIDES:
                quantizer = quantizer_at(norm, side)
                if quantizer is not None:
                    put_quantizer(block, side, quantizer)
            view.wrap(path, block)
