"""Cascades: proposals that put smaller trained networks in front, where latency counts and the user names some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cortado.engine.fingerprints import json_data
from cortado.errors import BadValue
from cortado.methods.conditional.cascade import ConditionalCascade
from cortado.methods.conditional.thresholds import ConditionalThresholds, early_answers, idle_answers, stopping_costs
from cortado.nets.cascade import member_of
from cortado.network.view import View
from cortado.planner.search.proposal import Proposal, stages_of
from cortado.planner.search.shapes import integers
from cortado.planner.search.trials import SearchGoal, Trial
from cortado.task.measure import mean_score
from cortado.task.task import Task

MOST_TRIALS = 8
CLOSE = 1.3
"""Shares of harmed samples within this factor count as equal."""
FASTER = 0.97
"""Largest share of the time of a stricter cascade that a looser one may take to be worth its harm."""
LOSE, MOST = 1.0, 50.0
"""Percent of samples that may be harmed, first without a score limit, and at most."""
CASCADE, THRESHOLDS = ConditionalCascade.name(), ConditionalThresholds.name()
ACTIVATIONS = integers()[1].name()


@dataclass
class Cascades:
    """Proposes cascades of `members`, written as for conditional/cascade; without members nothing.

    All members come first, in integers, with as many harmed samples as the score limit allows points (`lose`). If they are
    refused, each comes alone. The same follows in floats, then without members that do not pay; then `lose` is bisected between
    trials that kept the limits and others. `idle` has, by the number of a trial, the places of its members that do not pay.
    """

    wanted: SearchGoal
    members: tuple[Any, ...] = ()
    lose: float = LOSE
    tail: str = ""
    idle: dict[int, list[int]] = field(default_factory=dict)

    def next(self, trials: Sequence[Trial]) -> Proposal | None:
        """Return the next proposal; None if nothing remains."""
        own = [one for one in trials if is_cascade(one)]
        if not self.members or not self.wanted.time_counts or len(own) >= MOST_TRIALS:
            return None
        done, floats = [one for one in own if one.done], any(not in_integers(one) for one in own)
        if not done:
            # For one member alone fewer samples suffice.
            sets = [self.named, *([one] for one in self.named)]
            left = [one for one in sets if not any(members_in(trial) == one for trial in own)]
            if left or not floats:
                return self.proposal(left[0] if left else self.named, bool(left), self.lose)
            return None
        best = self.wanted.best(done)
        if not floats:
            return self.proposal(members_in(best), False, self.lose)
        return self.fewer(best, own) or self.another_lose(best, own)

    @property
    def named(self) -> list[Any]:
        """Return all members as a recipe has them."""
        return [json_data(one) for one in self.members]

    def learn(self, trial: Trial, made: nn.Module | None, original: nn.Module, task: Task) -> None:
        """Note which members of a finished trial do not pay."""
        if made is not None and trial.done and is_cascade(trial):
            self.idle[trial.number] = idle_in(made, original, task)

    def fewer(self, best: Trial, own: Sequence[Trial]) -> Proposal | None:
        """Return the best cascade without the members that do not pay; None if all do or none does, or once tried."""
        idle, members = self.idle.get(best.number, []), members_in(best)
        left = [one for place, one in enumerate(members) if place not in idle]
        tried = any(members_in(one) == left and in_integers(one) is in_integers(best) for one in own)
        return None if tried or not left else self.proposal(left, in_integers(best), lose_of(best))

    def another_lose(self, best: Trial, own: Sequence[Trial]) -> Proposal | None:
        """Return the best cascade with other thresholds: bisected between too strict and too loose, at first by doubling."""
        alike = [one for one in own if members_in(one) == members_in(best) and in_integers(one) is in_integers(best)]
        strict = sorted((one for one in alike if not self.too_loose(one)), key=lose_of)
        low = max(map(lose_of, strict), default=0.0)
        high = min((lose_of(one) for one in alike if self.too_loose(one) and lose_of(one) > low), default=0.0)
        if high and low:
            lose = (low * high) ** 0.5 if high / low > CLOSE**2 else 0.0
        else:
            lose = 2 * low if low else high / 2
        if not high and self.wanted.minimise == "latency" and no_faster(strict):
            return None
        return self.proposal(members_in(best), in_integers(best), lose) if 0.0 < lose <= MOST else None

    def too_loose(self, trial: Trial) -> bool:
        """Return whether fewer samples should stop early: the score is lost, or the time kept where it is not minimised."""
        if not trial.done:
            return False
        if self.wanted.minimise == "latency":
            return not self.wanted.keeps("score", trial)
        return self.wanted.keeps("latency", trial)

    def proposal(self, members: Sequence[Any], whole: bool, lose: float) -> Proposal:
        """Return a cascade, in integers if `whole`, with the tail and thresholds."""
        last = ConditionalThresholds(lose=float(f"{lose:.3g}"))
        names = " and ".join(member_text(one) for one in members)
        shape = ", ".join([f"cascade of {names}", *["integers"] * whole, f"lose={last.lose:g}"])
        stages = [
            ConditionalCascade(members=list(members)),
            *(integers() if whole else ()),
            *stages_of(self.tail),
            last,
        ]
        return Proposal.of(stages, shape)

    def note(self, trials: Sequence[Trial]) -> str:
        """Return why there is no cascade though members are named; "" if one was measured or none is named."""
        own = [one for one in trials if is_cascade(one)]
        if not self.members or any(one.done for one in own):
            return ""
        if not self.wanted.time_counts:
            return "No cascade was tried: latency does not count. Limit it, or minimise it."
        return f"No cascade was possible. {own[-1].failed}" if own else "No cascade was tried: time was up."


def cascades_for(wanted: SearchGoal, members: Sequence[Any], network: nn.Module, task: Task, tail: str) -> Cascades:
    """Return the proposals for a goal, with the harm that its score limit allows."""
    limit, lose = wanted.limit("score"), LOSE
    if limit is not None and wanted.time_counts:
        score = mean_score(network, task.validation, task.metric)
        points = -limit.change(score) if limit.relative else wanted.sign * (score - limit.value)
        lose = min(MOST, max(0.0, 100 * points / task.metric.scale))
    return Cascades(wanted, tuple(members), lose, tail)


def check_members(members: Any) -> tuple[Any, ...]:
    """Return named members.  Raises BadValue for what no bundle could name, BadRecipe and BadNetwork for what cannot be made."""
    if not isinstance(members, (list, tuple)) or not all(isinstance(one, (str, Mapping)) for one in members):
        raise BadValue(
            f"members: {members!r} is no list of names. Write each as resnet_8, package.module:maker or {{network: ...}}, as for "
            f"{CASCADE}."
        )
    for one in members:
        member_of(one)
    return tuple(members)


def idle_in(made: nn.Module, original: nn.Module, task: Task) -> list[int]:
    """Return the places of a network's answers that do not pay on the validation data."""
    found = early_answers(made, task)
    thresholds = [float(one) for sure in found.sures for one in sure.thresholds]
    costs = stopping_costs(View(made, original, task.example), found.sures)
    return [place for place, _, _ in idle_answers(found.stopping(thresholds), costs)]


def no_faster(strict: Sequence[Trial]) -> bool:
    """Return whether the loosest of some trials, strict to loose, is not faster than the one before."""
    times = [one.latency_ms for one in strict if one.latency_ms is not None]
    return len(times) > 1 and times[-1] > FASTER * times[-2]


def is_cascade(trial: Trial | Proposal) -> bool:
    """Return whether a recipe begins with a cascade."""
    return CASCADE in stages_in(trial)[0]


def has_paths(trial: Trial) -> bool:
    """Return whether a recipe ends with thresholds, so that paths depend on the input."""
    return THRESHOLDS in stages_in(trial)[-1]


def stages_in(trial: Trial | Proposal) -> list[dict[str, Any]]:
    """Return the stages of a recipe as data; an empty one if there is none."""
    return list(trial.recipe.get("stages") or [{}])


def members_in(trial: Trial) -> list[Any]:
    """Return the members of a trial's cascade."""
    return list(stages_in(trial)[0][CASCADE]["members"])


def in_integers(trial: Trial) -> bool:
    """Return whether a trial rounds activations."""
    return any(ACTIVATIONS in stage for stage in stages_in(trial))


def lose_of(trial: Trial) -> float:
    """Return the percent of samples that a trial's thresholds may harm."""
    return float(stages_in(trial)[-1][THRESHOLDS]["lose"])


def member_text(member: Any) -> str:
    """Return the name of a member."""
    return str(member["network"] if isinstance(member, Mapping) else member)
