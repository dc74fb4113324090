"""Perplexity: how surprised a language model is by a text, as a number of equally likely tokens."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cortado.task.metric import Metric, first_floats

IGNORED = -100


def perplexity(shift: bool = True, ignore: int = IGNORED, logits: Callable[[Any], Tensor] = first_floats) -> Metric:
    """Return the metric perplexity: e to the mean loss of a token, over all tokens of all texts; lower is better.

    `logits(outputs)` returns (N, tokens, vocabulary), by default the network's first float output; targets are token numbers
    (N, tokens), of which `ignore` marks those that do not count, such as padding. With `shift` each place predicts the next
    token, so targets are the inputs; without it, its own. The interval is that of the jackknife over texts.
    """
    each = partial(token_losses, shift=shift, ignore=ignore, logits=logits)
    return Metric("perplexity", "", each, higher_is_better=False, scale=1.0, whole=exponential_mean)


def token_losses(outputs: Any, targets: Tensor, shift: bool, ignore: int, logits: Callable[[Any], Tensor]) -> Tensor:
    """Return (N, 2): the summed loss of each text, in nats, and the number of tokens that count."""
    found = logits(outputs).float()
    found, wanted = (found[:, :-1], targets[:, 1:]) if shift else (found, targets)
    losses = functional.cross_entropy(found.transpose(1, 2), wanted, ignore_index=ignore, reduction="none")
    return torch.stack([losses.double().sum(1), (wanted != ignore).sum(1).double()], 1)


def exponential_mean(sums: Tensor) -> Tensor:
    """Map (..., 2), losses and tokens, to (...): e to the loss per token."""
    return (sums[..., 0] / sums[..., 1].clamp(min=1)).exp()
