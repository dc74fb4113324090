"""Forecast: what a plan of any size will cost, from a few plans that were measured."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from cortado.engine.stage import apply_stage, start
from cortado.errors import BadNetwork
from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode
from cortado.methods.match_moments import MatchMoments
from cortado.network.compare.divergence import Divergence, divergence_for, output_rows, rows_of
from cortado.network.graph.trace import device_of
from cortado.network.view import View, Weight
from cortado.planner.allocate.plan import Plan, plan_for
from cortado.planner.search.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.search.deadline import Deadline, seconds_of
from cortado.planner.sensitivity.candidates import Choices, RememberingTask, choice_key, choices_for
from cortado.progress import Progress, quiet
from cortado.running.brought import accept
from cortado.running.eval_mode import eval_mode
from cortado.task.measure import mean_score, scored_outputs
from cortado.task.task import Data, Task, to_device

VALIDATION_SAMPLES, BATCH = 1_000, 100
FEWEST_SAMPLES, SCORING = 64, 0.05
"""Of slow networks, within a time limit, so few validation samples, or as many as take this share of it."""
MEASURED_AT = (0.01, 0.05, 0.25, 1.0)
"""Where plans are measured: the smallest ones whose predicted KLs add up to so many nats at the most; where even the smallest of all
costs less than the last of these, all are less by as much."""
FURTHER = (4.0, 16.0)
"""Where more are measured as long as none has lost any of the score: how much nats cost cannot be told from zeros."""
SPREAD = 1.35
"""The least factor by which a prediction is taken to miss at one standard deviation; more where each of the measured plans,
predicted from the others, misses by more."""


@dataclass(frozen=True)
class Measured:
    """A plan as it was found: `kl` in nats and `score` on validation data, `size_bytes` of the whole file."""

    plan: Plan
    kl: float
    score: float
    size_bytes: int


@dataclass(frozen=True)
class Expected:
    """What is expected of a file of so many bytes; each with its low and high end at about one standard deviation."""

    size_bytes: float
    plan: Plan
    kl: tuple[float, float, float]
    lost: tuple[float, float, float]


@dataclass(frozen=True)
class SizeAccuracyCurve:
    """Choices for each weight, bytes of all else in the file, and what measured plans taught.

    `score` is the original network's on validation data; `sign` is 1 where a higher score is better, else -1.
    """

    choices: tuple[Choices, ...]
    rest_bytes: int
    score: float
    sign: int
    measured: tuple[Measured, ...] = ()
    left_out: tuple[str, ...] = ()
    """What there was no time for, in words."""
    samples: int = VALIDATION_SAMPLES
    """Validation samples that were looked at."""

    @property
    def ratios(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the measured plans: logarithms of the sum of predicted KLs, rising, and of measured KL over it."""
        usable = [(one.plan.predicted_kl, one.kl) for one in self.measured if one.kl > 0 and one.plan.predicted_kl > 0]
        predicted_kls, divergence = np.array(sorted(usable), dtype=np.float64).reshape(-1, 2).T
        return np.log(predicted_kls), np.log(divergence / predicted_kls)

    @property
    def constant(self) -> float:
        """Measured KL over the sum of predicted KLs, the geometric mean over the measured plans; 1 before any."""
        _, ratios = self.ratios
        return float(np.exp(ratios.mean())) if len(ratios) else 1.0

    @property
    def misses(self) -> list[float]:
        """The factor, 1 or more, between each measured plan's KL and what the other measured plans alone predict."""
        predicted_kls, ratios = self.ratios
        if len(ratios) < 2:
            return []
        others = [np.arange(len(ratios)) != left_out for left_out in range(len(ratios))]
        reported = [
            np.interp(at, predicted_kls[rest], ratios[rest]) for at, rest in zip(predicted_kls, others, strict=True)
        ]
        return [float(np.exp(abs(ratio - guess))) for ratio, guess in zip(ratios, reported, strict=True)]

    @property
    def spread(self) -> float:
        """The factor by which a prediction misses, at one standard deviation: as the measured plans do, but see SPREAD."""
        misses = np.log(self.misses)
        return SPREAD if not len(misses) else max(SPREAD, float(np.exp(np.sqrt(np.square(misses).mean()))))

    def kl(self, predicted_kl: float) -> float:
        """Nats that a sum of predicted KLs stands for: corrected as at the measured plans on either side."""
        predicted_kls, ratios = self.ratios
        if not len(ratios) or predicted_kl <= 0:
            return predicted_kl
        return predicted_kl * float(np.exp(np.interp(math.log(predicted_kl), predicted_kls, ratios)))

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of the smallest and of the largest file that is still another than the original's."""
        least = sum(one.candidates[-1].size_bytes for one in self.choices)
        most = sum(
            max((c.size_bytes for c in one.candidates if c.way), default=one.original_bytes) for one in self.choices
        )
        return least + self.rest_bytes, most + self.rest_bytes

    def plan(self, size_bytes: float) -> Plan | None:
        """The plan of least predicted KL whose file has at most so many bytes; None where none has."""
        return plan_for(self.choices, size_bytes - self.rest_bytes)

    def expected(self, size_bytes: float) -> Expected | None:
        """What a file of so many bytes will cost; None where no plan is as small."""
        plan = self.plan(size_bytes)
        if plan is None:
            return None
        kl = self.kl(plan.predicted_kl)
        ends = (kl, kl / self.spread, kl * self.spread)
        return Expected(
            plan.size_bytes + self.rest_bytes, plan, ends, (self.lost(ends[0]), self.lost(ends[1]), self.lost(ends[2]))
        )

    def lost(self, kl: float) -> float:
        """Points of the score that so many nats cost: between measured plans in a straight line, beyond them along the last,
        and not more than there are."""
        points = sorted((one.kl, max(0.0, self.sign * (self.score - one.score))) for one in self.measured)
        if not points:
            return math.nan
        divergence, lost = (np.maximum.accumulate([0.0, *column]) for column in zip(*points, strict=True))
        if kl <= divergence[-1]:
            return float(np.interp(kl, divergence, lost))
        beyond = float(lost[-1] * kl / divergence[-1])
        return min(beyond, self.score) if self.sign > 0 and self.score >= 0 else beyond

    def with_measured(self, *more: Measured) -> "SizeAccuracyCurve":
        return replace(self, measured=(*self.measured, *more))


def size_accuracy_curve(
    network: nn.Module,
    original: nn.Module,
    task: Task,
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
    predicted_kls: Sequence[float] = MEASURED_AT,
    progress: Progress | None = None,
    time_limit: str | float | None = None,
) -> SizeAccuracyCurve:
    """Return sensitivities, candidates and a few measured plans of `network`, which was made from `original`.

    Looks at calibration data, and at validation data to measure; never at the test data. Within a `time_limit` ("2 min", or
    seconds) the first way is carried out in any case, and as much of the rest as there is time for; `left_out` says what was not.
    Raises BadNetwork where there is no weight to choose for, BadValue for a limit that allows nothing.
    """
    accept(network, "plan")
    deadline, shown = Deadline(seconds_of(time_limit, "plan")), progress or quiet()
    if math.isfinite(deadline.seconds):
        deadline.each = seconds_a_sample(original, task)
    view = View(copy.deepcopy(network), original, task.example, shown)
    choices = choices_for(view, chosen_weights(view), task, candidate_recipes, deadline)
    rated = {one.path for one in choices}
    # What is left of the file without these records: biases, norms, the head.
    attached = sum(row.size_bytes for row in layer_rows(network, original) if row.path in rated)
    data = chosen(task, deadline)
    sign = 1 if task.metric.higher_is_better else -1
    found = SizeAccuracyCurve(
        choices, len(encode(network, original)) - attached, mean_score(original, data, task.metric), sign
    )
    for some in (predicted_kls, *([predicted_kl] for predicted_kl in FURTHER)):
        plans, made = plans_at(found, some), list[nn.Module]()
        with shown.bar("measured plans", len(plans)) as bar:
            while len(made) < len(plans) and not deadline.over():
                made.append(planned(plans[len(made)], network, original, task))
                bar.advance()
        if len(made) < len(plans):
            deadline.left_out.append(f"{len(plans) - len(made)} of {len(plans)} plans to measure")
        found = found.with_measured(*measured_plans(plans[: len(made)], made, original, task, data))
        if any(sign * one.score < sign * found.score for one in found.measured) or deadline.over():
            break
    return replace(found, left_out=tuple(deadline.left_out), samples=len(data))


def chosen_weights(view: View) -> list[Weight]:
    """Return the weights that a plan chooses for.  Raises BadNetwork where there are none."""
    weights = [weight for weight in view.all_weights if len(weight.shape) > 1 and weight.real]
    if not weights:
        raise BadNetwork(
            f"plan: {type(view.network).__name__} has no weight of two or more axes, so there is nothing to choose. "
            "Pass the network with its layers, not a wrapper of functions."
        )
    return weights


def remember(
    found: SizeAccuracyCurve,
    network: nn.Module,
    task: RememberingTask,
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
) -> None:
    """Keep the choices of a forecast that was made before for the stages that ask for the same."""
    view = View(network, network, task.example)
    task.keep(choice_key(view, chosen_weights(view), task, candidate_recipes), found.choices)


def plans_at(found: SizeAccuracyCurve, predicted_kls: Sequence[float]) -> list[Plan]:
    """The smallest plans of at most these predicted KLs, or the nearest that there are; none that is measured, none twice."""
    sizes = {one.plan.size_bytes for one in found.measured}
    least = found.plan(found.sizes[0])
    share = 1.0 if least is None or not predicted_kls else min(1.0, least.predicted_kl / predicted_kls[-1])
    made: list[Plan] = []
    for predicted_kl in (share * one for one in predicted_kls):
        low, high = map(math.log, found.sizes)
        for _ in range(30):
            middle = (low + high) / 2
            plan = found.plan(math.exp(middle))
            low, high = (middle, high) if plan is None or plan.predicted_kl > predicted_kl else (low, middle)
        plan = found.plan(math.ceil(math.exp(high)))
        if plan is not None and plan.predicted_kl > 0 and plan.size_bytes not in sizes:
            sizes.add(plan.size_bytes)
            made.append(plan)
    return made


def chosen(task: Task, deadline: Deadline | None = None) -> Data:
    """Return the validation data that one looks at for a plan."""
    most = min(VALIDATION_SAMPLES, len(task.validation))
    return task.validation.first(most if deadline is None else deadline.samples(most, SCORING, FEWEST_SAMPLES))


def seconds_a_sample(network: nn.Module, task: Task) -> float:
    """Return about how long a network takes for one sample."""
    begun = time.perf_counter()
    output_rows(network, to_device(task.example, device_of(network) or torch.device("cpu")))
    return (time.perf_counter() - begun) / 2


def planned(plan: Plan, network: nn.Module, original: nn.Module, task: Task) -> nn.Module:
    """Return a copy of `network` with its weights form planned, and its moments matched to what it had."""
    state = start(copy.deepcopy(network), original, task.example)
    for stage in plan.recipe().stages:
        state = apply_stage(stage, state, task, match_moments=False, check=False)
    return apply_stage(MatchMoments(), replace(state, reference=network), task).network


def measured_plans(
    plans: Sequence[Plan], made: Sequence[nn.Module], original: nn.Module, task: Task, data: Data
) -> list[Measured]:
    """Return plans by the networks that they made of the original, all in one pass over the data."""
    divergence, device = divergence_for(original, task), device_of(original) or torch.device("cpu")
    totals, count, each = [0.0] * len(made), 0, [list[Tensor]() for _ in made]
    for inputs, targets in data.batches(BATCH) if made else ():
        given = to_device(inputs, device)
        wanted = output_rows(original, given).double()
        count += len(wanted)
        for number, network in enumerate(made):
            with eval_mode(network), eval_mode(original):
                outputs, found = scored_outputs(network, given, targets, task.metric, original)
            each[number].append(found)
            totals[number] += float(divergence.between(wanted, rows_of(outputs).double()).sum())
    scores = [float(task.metric.shares(torch.cat(some)).double().mean()) * task.metric.scale for some in each]
    return [
        Measured(plan, total / count, score, len(encode(network, original)))
        for plan, total, score, network in zip(plans, totals, scores, made, strict=True)
    ]


def mean_divergences(
    original: nn.Module, networks: Sequence[nn.Module], data: Data, divergence: Divergence
) -> list[float]:
    """How far each network's answers are from the original's: means over all answers, in nats."""
    totals, count, device = [0.0] * len(networks), 0, device_of(original) or torch.device("cpu")
    for inputs, _ in data.batches(BATCH):
        given = to_device(inputs, device)
        wanted = output_rows(original, given).double()
        count += len(wanted)
        for number, network in enumerate(networks):
            totals[number] += float(divergence.between(wanted, output_rows(network, given).double()).sum())
    return [total / count for total in totals]
