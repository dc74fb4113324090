"""Softmax: the divergence of two softmaxes, for outputs that are logits of classes or tokens."""

import torch
from torch import Tensor

from cortado.task.outputs.outputs import Outputs, Rows, signs_like


def kl(wanted: Tensor, found: Tensor, temperature: float = 1.0) -> Tensor:
    """Return (N,): the KL divergence of the softmaxes of logits (N, places, classes) at `temperature`, averaged over places.

    A class with probability 0 adds 0, even if both networks mask it with minus infinity.
    """
    original, other = (wanted / temperature).log_softmax(-1), (found / temperature).log_softmax(-1)
    share = original.exp()
    # In place, because logits of a large vocabulary are most of the memory here.
    terms = original.sub(other).mul_(share).masked_fill_(share == 0, 0.0)
    return terms.sum(-1).mean(-1)


def kl_slope(rows: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Return v . rows, summed, with v = sqrt(p) xi - p (sqrt(p) . xi), random signs xi and p = softmax(rows / temperature).

    The mean of v v^T is the Hessian of KL; each place counts as one of the sample's.
    """
    p = (rows.detach() / temperature).softmax(-1)
    signed = p.sqrt().mul_(signs_like(rows, generator))
    # In place: with a large vocabulary each of these is most of the memory.
    v = p.mul_(-signed.sum(-1, keepdim=True)).add_(signed)
    return (rows * v).sum() / rows.shape[1] ** 0.5


def same_largest(wanted: Tensor, found: Tensor) -> Tensor:
    """Return (N,): the share of places with the same largest logit."""
    return (wanted.argmax(-1) == found.argmax(-1)).double().mean(-1)


class Softmax(Outputs):
    """Outputs that stand for their softmax: the divergence is KL, and the largest one decides."""

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        return kl(wanted, found, temperature)

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        return kl_slope(rows, temperature, generator)

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        return same_largest(wanted, found)

    @property
    def softens(self) -> bool:
        return True
