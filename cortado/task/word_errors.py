"""Word errors: how many words of a transcript are wrong."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.metric import Metric


def word_error_rate(decode: Callable[[Any], Sequence[str]]) -> Metric:
    """Return the metric word error rate, in %: words replaced, left out or added, over all words of the references.

    `decode(outputs)` returns the network's sentence for each sample; targets are a list of sentences. The score is no mean
    over samples, since long sentences count more; its interval is that of the jackknife.
    """
    each = partial(errors_of_batch, decode=decode)
    return Metric("word error rate", "%", each, higher_is_better=False, whole=share_of_words)


def errors_of_batch(outputs: Any, targets: Sequence[str], decode: Callable[[Any], Sequence[str]]) -> Tensor:
    """Return (N, 2): the word errors of each sample, and the words of its reference.  Raises BadTask."""
    found = decode(outputs)
    if len(found) != len(targets) or not all(isinstance(one, str) for one in (*found, *targets)):
        raise BadTask(
            f"task: the word error rate needs one sentence per sample, got {len(found)} for {len(targets)} targets. Let decode "
            "return a list of strings, and pass targets as one."
        )
    rows = [(word_errors(one.split(), two.split()), len(two.split())) for one, two in zip(found, targets, strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


def word_errors(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Return the fewest words to replace, leave out or add to make `wanted` from `found`.  Levenshtein, 1966."""
    before = list(range(len(wanted) + 1))
    for number, word in enumerate(found, 1):
        row = [number]
        for place, other in enumerate(wanted, 1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (word != other)))
        before = row
    return before[-1]


def share_of_words(sums: Tensor) -> Tensor:
    """Map (..., 2), errors and words, to (...): errors per word."""
    return sums[..., 0] / sums[..., 1].clamp(min=1)
