"""simplify/norms: fold each batch norm's four vectors into a scale and a shift."""

from dataclasses import dataclass

import torch
from torch import nn

from cortado.errors import NothingChanged
from cortado.methods.method import Method
from cortado.network.view import View
from cortado.parts.forms.attach import attached_names
from cortado.task.task import Task


@dataclass(frozen=True)
class SimplifyNorms(Method):
    """Fold mean and variance of every batch norm into its gain and shift: y = gain x + shift, mean 0, variance 1.

    In eval mode the network computes the same, up to rounding. The statistics then cost nothing in the file, and gain
    and shift can be rounded. Use it last: training would gather statistics again.
    """

    def apply(self, view: View, task: Task) -> None:
        chosen = view.network.modules() if self.where == "*" else [weight.layer for weight in view.weights(self.where)]
        norms = [layer for layer in dict.fromkeys(chosen) if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        # A gain or shift shared by two norms cannot absorb the statistics of both.
        shared = {id(layer) for weight in view.all_weights if len(weight.places) > 1 for layer, _ in weight.places}
        ready = [
            n
            for n in norms
            if n.affine and n.running_mean is not None and not attached_names(n) and id(n) not in shared
        ]
        if not ready:
            raise NothingChanged(
                "simplify/norms: the network has no batch norm with statistics, gain and shift. Leave it out."
            )
        for norm in ready:
            assert norm.running_mean is not None and norm.running_var is not None
            with torch.no_grad():
                gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
                norm.bias.copy_(norm.bias.double() - norm.running_mean.double() * gain)
                norm.weight.copy_(gain)
                norm.running_mean.zero_()
                norm.running_var.fill_(1 - norm.eps)
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.zero_()
