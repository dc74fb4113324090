"""Divergence: how far the answers of two networks are apart, in nats."""

from typing import Any

from torch import Tensor, nn

from cortado.evaluating import evaluating
from cortado.network.trace import call_with, tensors_in


def answers(network: nn.Module, inputs: Any) -> Tensor:
    """What a network gives for `inputs`, its first tensor, as (rows, classes): the last axis, of maps (N, classes, H, W ...)
    the second, pixel by pixel; (rows, 1) where each answer is one number.
    """
    with evaluating(network):
        found = tensors_in(call_with(network, inputs))[0].float()
    found = found.movedim(1, -1) if found.dim() > 3 else found
    return found.reshape(-1, found.shape[-1] if found.dim() > 1 else 1)


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Kullback-Leibler of each row of answers from the one wanted, in nats; of single numbers half the squared error."""
    if wanted.shape[-1] == 1:
        return 0.5 * (found - wanted).square().sum(-1)
    plain, other = wanted.log_softmax(-1), found.log_softmax(-1)
    return (plain.exp() * (plain - other)).sum(-1)
