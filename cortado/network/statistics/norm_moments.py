"""Moments in front of and behind norms, and how a norm is set so that wanted ones come out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.forms.attach import attached_names

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel, float64."""


def channel_moments(activation: Tensor, axis: int) -> Moments:
    """Return mean and variance of each channel along `axis`, over all other axes; float64."""
    axes = [other for other in range(activation.dim()) if other != axis % activation.dim()]
    exact = activation if activation.dtype == torch.float64 else activation.float()
    variance, mean = torch.var_mean(exact, axes, correction=0)
    return mean.double(), variance.double()


def ratio_of(wanted: Tensor, got: Tensor) -> Tensor:
    """Return the factor by which each channel's deviation must grow; 1 where it is undefined, limited elsewhere."""
    ratio = (wanted / got.clamp(min=1e-12)).sqrt()
    return torch.where((got < 1e-10) | (wanted < 1e-10), 1.0, ratio.clamp(0.25, 4.0))


def normed(layer: Any, given: Moments) -> Moments:
    """Return the moments behind a norm, given those in front of it."""
    if isinstance(layer, ScaleShift):
        gain = layer.weight.detach().double()
        return given[0] * gain + layer.bias.detach().double(), given[1] * gain**2
    gain, shift, spread = norm_numbers(layer)
    return (given[0] - layer.running_mean.double()) * gain / spread + shift, given[1] * (gain / spread) ** 2


def norm_numbers(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain, shift and stored deviation of a norm, float64."""
    mean, spread = layer.running_mean.double(), (layer.running_var.double() + layer.eps).sqrt()
    gain = torch.ones_like(mean) if layer.weight is None else layer.weight.detach().double()
    return gain, torch.zeros_like(mean) if layer.bias is None else layer.bias.detach().double(), spread


def norm_hook(path: str, wanted: Moments, done: set[str]) -> Callable[..., None]:
    def hook(layer: Any, activation: Tensor) -> None:
        got = channel_moments(activation, 1)
        if isinstance(layer, ScaleShift):
            if path not in done and got[0].shape == wanted[0].shape and not attached_names(layer):
                done.add(path)
                match_scale_shift(layer, got, wanted)
            return
        if path in done or layer.running_mean is None or got[0].shape != wanted[0].shape:
            return
        done.add(path)
        gain, shift, spread = norm_numbers(layer)
        variance = ((spread / ratio_of(wanted[1], normed(layer, got)[1])) ** 2 - layer.eps).clamp(min=0)
        spread = (variance + layer.eps).sqrt()
        # A channel with zero gain outputs its shift for any input.
        mean = got[0] - (wanted[0] - shift) * spread / torch.where(gain == 0, 1.0, gain)
        layer.running_mean.copy_(torch.where(gain == 0, layer.running_mean.double(), mean))
        layer.running_var.copy_(variance)

    return hook


def match_scale_shift(layer: ScaleShift, got: Moments, wanted: Moments) -> None:
    """Set scale and shift so that inputs with the moments `got` give the wanted ones; a scale of zero stays."""
    gain = layer.weight.detach().double()
    scale = gain * ratio_of(wanted[1], normed(layer, got)[1])
    layer.bias.copy_(torch.where(gain == 0, layer.bias.double(), wanted[0] - got[0] * scale))
    layer.weight.copy_(scale)
