"""Mean cost: what a network that can stop early scores for what it spends, at any time, and on average over samples.

All here is computed from three tensors: how sure each answer is, how well it does, and what has been spent by then.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.blocks.rows import NEVER

ALWAYS = -1.0
"""A threshold that every confidence passes."""
LARGEST_LOG_RATIO = 60.0
HALVINGS = 100


@dataclass(frozen=True)
class Spent:
    """A point of a curve: the mean score over samples, and the mean cost of one.

    `thresholds` are those of all answers but the last, and `shares` says how many samples got each answer; both are
    empty where every sample got the same.
    """

    cost: float
    score: float
    thresholds: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()


def anytime_curve(scores: Tensor, costs: Sequence[float]) -> list[Spent]:
    """Return the mean score of each answer at its cost, from the scores of samples (answers, samples).

    What a network has to say when it is interrupted. `costs` are what has been spent up to each answer, such as
    multiply-adds or milliseconds. Raises BadValue for costs that do not rise or do not fit.
    """
    check_costs(scores, costs)
    return [Spent(cost, float(one.double().mean())) for one, cost in zip(scores, costs, strict=True)]


def mean_cost_curve(
    chosen_on: Tensor, confidences: Tensor, scores: Tensor, costs: Sequence[float], means: Sequence[float]
) -> list[Spent]:
    """Return score and cost where a sample may cost so much on average.  Huang et al., 2018, section 5.2.

    Thresholds are found on the confidences `chosen_on` (answers, samples) of validation data, so that a geometric share
    of samples leaves at each answer; score and cost are those of other samples with `confidences` and `scores` (answers,
    samples). So their mean cost may differ from the one asked for. Raises BadValue for one that no shares meet.
    """
    check_costs(scores, costs)
    found = []
    for mean in means:
        thresholds = thresholds_for(chosen_on, geometric_shares(costs, mean))
        places = leaving(confidences, thresholds)
        shares = torch.bincount(places, minlength=len(costs)).double() / places.numel()
        score = scores.double().gather(0, places[None]).mean()
        cost = float(shares @ torch.tensor(costs, dtype=torch.float64))
        found.append(Spent(cost, float(score), tuple(thresholds), tuple(shares.tolist())))
    return found


def geometric_shares(costs: Sequence[float], mean: float) -> list[float]:
    """Return the share of samples that leave at each answer, so that they cost `mean` on average.

    Each share is the one before times a ratio, 1 - q where a share q of those that reach an answer leaves there. Raises
    BadValue for a mean below the first cost or above the last.
    """
    if not costs[0] <= mean <= costs[-1]:
        raise BadValue(
            f"task/mean_cost: the mean must lie between the first answer's cost and the last one's, {costs[0]:g}..{costs[-1]:g}, "
            f"got {mean:g}."
        )
    low, high = -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        spent = sum(share * cost for share, cost in zip(geometric(middle, len(costs)), costs, strict=True))
        low, high = (middle, high) if spent < mean else (low, middle)
    return geometric((low + high) / 2, len(costs))


def geometric(log_ratio: float, count: int) -> list[float]:
    """Return so many shares that sum to 1, each the one before times the ratio."""
    most = max(0.0, log_ratio * (count - 1))
    parts = [math.exp(log_ratio * number - most) for number in range(count)]
    return [part / sum(parts) for part in parts]


def thresholds_for(confidences: Tensor, shares: Sequence[float]) -> list[float]:
    """Return the threshold of each answer but the last, above which these shares of the samples leave.

    From confidences (answers, samples) and a share for each answer. At each answer the surest of those that are still there
    leave. Samples that are equally sure stay together; later answers make up for them.
    """
    count = confidences.shape[1]
    staying, found, left = torch.ones(count, dtype=torch.bool), [], 0.0
    for sure, share in zip(confidences[:-1], shares[:-1], strict=True):
        left += share
        ranked = sure[staying].sort(descending=True).values
        due = round(left * count) - (count - len(ranked))
        found.append(threshold_of(ranked, due))
        staying &= ~(sure > found[-1])
    return found


def threshold_of(ranked: Tensor, due: int) -> float:
    """Return the threshold that `due` of these confidences pass, or fewer where several are equal; they fall."""
    if due <= 0:
        return NEVER
    return ALWAYS if due >= len(ranked) else float(ranked[due])


def leaving(confidences: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Return the place of the answer that each sample gets, (samples,), from confidences (answers, samples)."""
    sure = confidences[:-1] > torch.tensor(thresholds, dtype=confidences.dtype)[:, None]
    return (~sure).long().cumprod(0).sum(0)


def check_costs(scores: Tensor, costs: Sequence[float]) -> None:
    """Raise BadValue unless there is a cost for each row of scores, and they rise."""
    rises = all(before < after for before, after in pairwise(costs))
    if len(costs) != len(scores) or not rises:
        raise BadValue(
            f"task/mean_cost: there must be a cost for each of {len(scores)} answers, higher for later ones, got {list(costs)}."
        )
