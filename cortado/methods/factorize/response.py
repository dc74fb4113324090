"""factorize/response: keep the directions in which a layer's responses vary most."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cortado.methods.factorize.consumers import Consumer, consumer_of
from cortado.methods.factorize.factorize import Chosen, Factorize, chosen_ranks, factorize
from cortado.methods.factorize.ranks import Cut
from cortado.methods.factorize.svd import two_kernels, whole_then_point
from cortado.methods.factorize.targets import LAYERS, Target
from cortado.methods.method import knob
from cortado.network.statistics.activations import Moments, response_moments
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank
from cortado.task.task import Task


@dataclass(frozen=True)
class ResponseCut(Cut):
    """A cut with the moments of the responses and their principal axes, as scaled by the norm behind."""

    moments: Moments
    axes: Tensor
    after: Consumer


@dataclass(frozen=True)
class FactorizeResponse(Factorize):
    """Principal components of the responses y: d' whole filters, then a 1 x 1 kernel.  Zhang et al., 2015 (linear).

    y is scaled by the batch norm behind the layer. Its mean is preserved in the layer's bias or in the norm.
    """

    needs = (LAYERS,)

    images: int = knob(256, low=1, help="calibration samples")

    def apply(self, view: View, task: Task) -> None:
        cuts = response_cuts(view, task, LAYERS.require(self, view, task), self.images)
        factorize(self, view, cuts, chosen_ranks(self, cuts), along_principal_axes)


def along_principal_axes(chosen: Chosen) -> Iterator[LowRank]:
    """Yield each layer with only the leading axes of its responses, and add the constant that keeps their mean."""
    for cut, rank in chosen:
        assert isinstance(cut, ResponseCut)
        target, scale = cut.target, usable(cut.after.scale(cut.target.shape[0]).cpu())
        axes = cut.axes[:, :rank]
        first, last = (axes.T * scale) @ target.flat.double().cpu(), axes / scale[:, None]
        bias = bias_of(target)
        rest = cut.moments.mean - bias
        # Without this constant, the new layer's mean response is only the projection of the old one's.
        cut.after.add_constant(target.layer, rest - last @ ((axes.T * scale) @ rest))
        yield two_kernels(first, last, target.weight.dense())


def response_cuts(view: View, task: Task, targets: list[Target], images: int) -> list[Cut]:
    """Return each layer's cut by principal components of its responses."""
    found = response_moments(view, [target.path for target in targets], task, images)
    cuts: list[Cut] = []
    for target in targets:
        after, moments = consumer_of(view, target), found[target.path]
        spread = moments.covariance
        if not after.takes_constant(target.layer):
            rest = moments.mean - bias_of(target)
            spread = spread + torch.outer(rest, rest)
        scale = usable(after.scale(len(spread)).cpu())
        values, vectors = torch.linalg.eigh(scale[:, None] * spread * scale)
        sketch = partial(whole_then_point, target.shape)
        energies = values.flip(0).clamp(min=0)
        most = min(target.flat.shape)
        cuts.append(ResponseCut(target, energies[:most], sketch, moments, vectors.flip(1), after))
    return cuts


def bias_of(target: Target) -> Tensor:
    """Return the layer's bias, float64; zeros if it has none."""
    bias = target.layer.bias
    return torch.zeros(target.shape[0], dtype=torch.float64) if bias is None else bias.detach().double().cpu()


def usable(scale: Tensor) -> Tensor:
    """Return the scale with a floor for channels that a norm almost shuts off, so that it can be divided by."""
    least = 1e-3 * scale.abs().max().clamp(min=1e-12)
    return torch.where(scale.abs() < least, least, scale)
