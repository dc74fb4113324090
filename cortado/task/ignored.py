"""Ignored: the label that a loss leaves out, and whether what a Move shows outside of pictures has that label."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadTask
from cortado.running.trees import tensors_in
from cortado.task.data import Data
from cortado.task.move import Move

NO_CLASS = -100
"""Torch's own ignore_index."""


def ignored_label(loss: Callable[..., Any]) -> int:
    """Return the ignore_index of a loss: of a module, of a partial of torch's functions, else torch's own, -100."""
    if isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return int(loss.ignore_index)
    return int(loss.keywords.get("ignore_index", NO_CLASS)) if isinstance(loss, partial) else NO_CLASS


def check_void(data: Data, loss: Callable[..., Any], known: Data) -> None:
    """Raise BadTask where a Move gives places outside of pictures a label that is no class and that torch's loss reads.

    `known` are samples with labels, in memory. A class, such as that of the background, may be meant.
    """
    move, ignored = data.vary, ignored_label(loss)
    if not isinstance(move, Move) or not move.leaves_pictures or move.void == ignored or not of_torch(loss):
        return
    maps = [one for one in tensors_in(known.targets) if is_label_map(one)]
    largest = max((int(one[one != ignored].max()) for one in maps if bool((one != ignored).any())), default=-1)
    if maps and not 0 <= move.void <= largest:
        raise BadTask(
            f"task: a Move labels what is outside of pictures with void={move.void}, and the loss ignores the label {ignored}: "
            f"it would read {move.void} as a class. Write Move(void={ignored}), or give the loss ignore_index={move.void}."
        )


def of_torch(loss: Callable[..., Any]) -> bool:
    """Return whether a loss is one of torch's for classes, which ignore one label."""
    function = loss.func if isinstance(loss, partial) else loss
    return isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) or function in (
        nn.functional.cross_entropy,
        nn.functional.nll_loss,
    )


def is_label_map(values: Any) -> bool:
    """Return whether a Move moves these as labels: whole numbers (N, H, W)."""
    whole = isinstance(values, Tensor) and not values.is_floating_point() and values.dtype != torch.bool
    return whole and values.dim() == 3
