"""Spearman: how well numbers are put in order, as for the similarity of sentences."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortado.task.metric import Metric, first_floats


def spearman(predictions: Callable[[Any], Tensor] = first_floats) -> Metric:
    """Return the metric Spearman's rank correlation, in %, of one number per sample with its target.

    `predictions(outputs)` returns (N,) or (N, 1); by default the network's first float output. Equal numbers share their
    mean rank. The interval is that of the jackknife.  Spearman, 1904.
    """
    return Metric("Spearman", "%", partial(pairs, predictions=predictions), value=rank_correlation)


def pairs(outputs: Any, targets: Tensor, predictions: Callable[[Any], Tensor]) -> Tensor:
    """Return (N, 2): prediction and target of each sample."""
    return torch.stack([predictions(outputs).reshape(len(targets)).double(), targets.reshape(-1).double()], 1)


def rank_correlation(rows: Tensor) -> float:
    """Return the correlation of the ranks of two columns, in -1..1; 0 where a column is constant."""
    one, two = (mean_ranks(column) for column in rows.T)
    one, two = one - one.mean(), two - two.mean()
    size = float((one.square().sum() * two.square().sum()).sqrt())
    return float((one * two).sum()) / size if size else 0.0


def mean_ranks(values: Tensor) -> Tensor:
    """Return the rank of each value, from 0; equal values have their mean rank."""
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts + 1) / 2)[places]
