"""Size-accuracy curve: the expected loss of a plan of any size, from a few measured plans."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from cortado.engine.stage import apply_stage, start, view_of
from cortado.errors import BadNetwork
from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode
from cortado.methods.match_moments import MatchMoments
from cortado.network.compare.divergence import output_rows
from cortado.network.graph.trace import device_of
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.planner.allocate.measured_plans import Measured, measured_plans, shifted_scores
from cortado.planner.allocate.plan import Plan, plan_for
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.sensitivity.candidates import Choices, choice_key, choices_for
from cortado.planner.sensitivity.deadline import Deadline, seconds_of
from cortado.planner.sensitivity.remembering import RememberingTask
from cortado.progress import Progress, quiet
from cortado.running.brought import accept
from cortado.running.trees import to_device
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.task import Task

VALIDATION_SAMPLES = 1_000
FEWEST_SAMPLES, SCORING = 64, 0.05
"""Validation samples of a slow network under a time limit: as many as take this share of it, but no fewer."""
MATCHING = 0.03
"""Share of a time limit for one pass over the samples that match a plan's moments."""
MEASURED_AT = (0.01, 0.05, 0.25, 1.0)
"""Predicted KL (nats) of the plans to measure, the smallest plan below each; scaled down if the smallest plan of all costs
less than the last one."""
FURTHER = (4.0, 16.0)
"""Further ones while no measured plan has lost any score: the score per nat is unknown until then."""
SPREAD = 1.35
"""Least factor of a prediction error at one standard deviation; larger if the measured plans, each predicted from the
others, miss by more."""


@dataclass(frozen=True)
class Expected:
    """The expected KL and loss of score of a file, each with its low and high end at about one standard deviation."""

    size_bytes: float
    plan: Plan
    kl: tuple[float, float, float]
    lost: tuple[float, float, float]


@dataclass(frozen=True)
class SizeAccuracyCurve:
    """Choices for each weight, bytes of the rest of the file, and measured plans.

    `score` is the original network's on validation data; `sign` is 1 if a higher score is better, else -1.
    """

    choices: tuple[Choices, ...]
    rest_bytes: int
    score: float
    sign: int
    measured: tuple[Measured, ...] = ()
    left_out: tuple[str, ...] = ()
    """What was skipped for lack of time."""
    bound: bool = False
    """Whether a time limit decided anything of it."""
    samples: int = VALIDATION_SAMPLES
    """Validation samples used."""
    shifted: dict[str, float] = field(default_factory=dict)
    """The original network's scores on these samples after each shift that a limit names."""

    @property
    def ratios(self) -> tuple[np.ndarray, np.ndarray]:
        """Return log predicted KL of the measured plans, rising, and the log ratios of measured to predicted KL."""
        usable = [(one.plan.predicted_kl, one.kl) for one in self.measured if one.kl > 0 and one.plan.predicted_kl > 0]
        predicted_kls, divergence = np.array(sorted(usable), dtype=np.float64).reshape(-1, 2).T
        return np.log(predicted_kls), np.log(divergence / predicted_kls)

    @property
    def constant(self) -> float:
        """Return the geometric mean of measured over predicted KL; 1 without measured plans."""
        _, ratios = self.ratios
        return float(np.exp(ratios.mean())) if len(ratios) else 1.0

    @property
    def misses(self) -> list[float]:
        """Return the factor (1 or more) by which the other measured plans mispredict each measured plan's KL."""
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
        """Return the factor of a prediction error at one standard deviation, from `misses` but at least SPREAD."""
        misses = np.log(self.misses)
        return SPREAD if not len(misses) else max(SPREAD, float(np.exp(np.sqrt(np.square(misses).mean()))))

    def kl(self, predicted_kl: float) -> float:
        """Return a sum of predicted KL corrected by interpolating the ratios of the measured plans."""
        predicted_kls, ratios = self.ratios
        if not len(ratios) or predicted_kl <= 0:
            return predicted_kl
        return predicted_kl * float(np.exp(np.interp(math.log(predicted_kl), predicted_kls, ratios)))

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the smallest file, and of the largest one with every weight compressed."""
        least = sum(one.candidates[-1].size_bytes for one in self.choices)
        most = sum(
            max((c.size_bytes for c in one.candidates if c.way), default=one.original_bytes) for one in self.choices
        )
        return least + self.rest_bytes, most + self.rest_bytes

    def plan(self, size_bytes: float) -> Plan | None:
        """Return the plan of least predicted KL within a file size; None if there is none."""
        return plan_for(self.choices, size_bytes - self.rest_bytes)

    def expected(self, size_bytes: float) -> Expected | None:
        """Return what to expect of a file of `size_bytes`; None if no plan is as small."""
        plan = self.plan(size_bytes)
        if plan is None:
            return None
        kl = self.kl(plan.predicted_kl)
        ends = (kl, kl / self.spread, kl * self.spread)
        return Expected(
            plan.size_bytes + self.rest_bytes, plan, ends, (self.lost(ends[0]), self.lost(ends[1]), self.lost(ends[2]))
        )

    def score_under(self, shift: str = "") -> float:
        """Return the original network's score after a shift, "" for none."""
        return self.shifted[shift] if shift else self.score

    def lost(self, kl: float, shift: str = "") -> float:
        """Return the points of score lost at a KL, after a shift: linear between measured plans and beyond them, at most the
        whole score; nan without measured plans."""
        score = self.score_under(shift)
        found = [
            (one.kl, one.shifted[shift] if shift else one.score) for one in self.measured if not shift or one.shifted
        ]
        points = sorted((kl, max(0.0, self.sign * (score - one))) for kl, one in found)
        if not points:
            return math.nan
        divergence, lost = (np.maximum.accumulate([0.0, *column]) for column in zip(*points, strict=True))
        if kl <= divergence[-1]:
            return float(np.interp(kl, divergence, lost))
        beyond = float(lost[-1] * kl / divergence[-1])
        return min(beyond, score) if self.sign > 0 and score >= 0 else beyond

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
    shifts: Sequence[str] = (),
) -> SizeAccuracyCurve:
    """Return the size-accuracy curve of `network`, which was made from `original`: candidates and a few measured plans.

    Predicts from calibration data and measures on validation data, never on test data. Within a `time_limit` ("2 min", or
    seconds) it applies the first recipe and as many others as fit; `left_out` lists what was skipped. Plans are also scored on
    validation samples after each of `shifts`. Raises BadNetwork
    without a weight to choose for, BadValue for an invalid limit.
    """
    accept(network, "plan")
    deadline, shown = Deadline(seconds_of(time_limit, "plan")), progress or quiet()
    if math.isfinite(deadline.seconds):
        deadline.each = seconds_a_sample(original, task)
    view = view_of(start(copy.deepcopy(network), original, task.example), shown)
    choices = choices_for(view, chosen_weights(view), task, candidate_recipes, deadline)
    rated = {one.path for one in choices}
    weight_bytes = sum(row.size_bytes for row in layer_rows(network, original) if row.path in rated)
    data = chosen(task, deadline)
    sign = 1 if task.metric.higher_is_better else -1
    (shifted,) = shifted_scores([original], original, task, data, shifts)
    found = SizeAccuracyCurve(
        choices,
        len(encode(network, original)) - weight_bytes,
        mean_score(original, data, task.metric),
        sign,
        shifted=shifted,
    )
    for some in (predicted_kls, *([predicted_kl] for predicted_kl in FURTHER)):
        plans = plans_at(found, some)
        made = planned_in_time(plans, network, original, task, deadline, len(data) * deadline.each, shown)
        if len(made) < len(plans):
            deadline.left_out.append(f"{len(plans) - len(made)} of {len(plans)} plans to measure")
        found = found.with_measured(*measured_plans(plans[: len(made)], made, original, task, data, shifts))
        if any(sign * one.score < sign * found.score for one in found.measured) or len(made) < len(plans):
            break
    return replace(found, left_out=tuple(deadline.left_out), samples=len(data), bound=deadline.bound)


def planned_in_time(
    plans: Sequence[Plan], network: nn.Module, original: nn.Module, task: Task, deadline: Deadline, scoring: float,
    shown: Progress,
) -> list[nn.Module]:  # fmt: skip
    """Return the networks of as many plans as can be made, and scored in `scoring` seconds each, before the deadline."""
    images, took, made = deadline.samples(MatchMoments().images, MATCHING), 0.0, list[nn.Module]()
    with shown.bar("measured plans", len(plans)) as bar:
        while len(made) < len(plans) and not deadline.over(ahead=took + (len(made) + 2) * scoring):
            begun = deadline.spent
            made.append(planned(plans[len(made)], network, original, task, images))
            took = deadline.spent - begun
            bar.advance()
    return made


def chosen_weights(view: View) -> list[Weight]:
    """Return the weights of two or more axes.  Raises BadNetwork if there are none."""
    weights = [weight for weight in view.all_weights if len(weight.shape) > 1 and weight.real]
    if not weights:
        raise BadNetwork(
            f"plan: {type(view.network).__name__} has no weight of two or more axes, so there is nothing to plan. "
            "Pass the network with its layers, not a wrapper of functions."
        )
    return weights


def remember(
    found: SizeAccuracyCurve,
    network: nn.Module,
    task: RememberingTask,
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
) -> None:
    """Store the choices of an earlier curve in the task's cache, unless a clock has cut them short."""
    if found.bound:
        return
    view = view_of(start(network, network, task.example))
    task.keep(choice_key(view, chosen_weights(view), task, candidate_recipes), found.choices)


def plans_at(found: SizeAccuracyCurve, predicted_kls: Sequence[float]) -> list[Plan]:
    """Return the smallest plan within each predicted KL, or the nearest one; skip measured plans and duplicates."""
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
    """Return the validation samples for measuring plans."""
    most = min(VALIDATION_SAMPLES, len(task.validation))
    return task.validation.first(most if deadline is None else deadline.samples(most, SCORING, FEWEST_SAMPLES))


def seconds_a_sample(network: nn.Module, task: Task) -> float:
    """Return the approximate seconds of a network for one sample."""
    begun = time.perf_counter()
    output_rows(network, to_device(task.example, device_of(network)), task.outputs)
    return (time.perf_counter() - begun) / 2


def planned(
    plan: Plan, network: nn.Module, original: nn.Module, task: Task, images: int = MatchMoments().images
) -> nn.Module:
    """Return a copy of `network` with the plan applied and its moments matched to the network's on so many samples."""
    state = start(copy.deepcopy(network), original, task.example)
    for stage in plan.recipe().stages:
        state = apply_stage(stage, state, task, match_moments=False, check=False)
    return apply_stage(MatchMoments(images=images), replace(state, reference=network), task).network
