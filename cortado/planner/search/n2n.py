"""N2N: a policy that first removes layers and then shrinks them, trained by REINFORCE on the rewards of its trials."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cortado.planner.search.ranges import Range

CHOICES = 10
"""Values on a range of floats: the paper shrinks to 0.1, 0.2 .. 1.0."""
HIDDEN, ROLLOUTS, LR, MEMORY = 30, 5, 0.01, 0.9
"""Units of an LSTM; trials a step; step size of Adam; how slowly the mean of the rewards moves."""
REMOVES = re.compile(r"prune/blocks|\b(depth|blocks|layers|repeats)\b|_(depth|blocks|layers|repeats)\b")
"""Ranges that say which layers there are; the others say how large they are."""
FEWEST = 15
"""Trials for removal where the number of trials is not known."""


class Rewarded(NamedTuple):
    """A trial that has ended: its drawn values by name, and its reward."""

    point: dict[str, Any]
    reward: float


class Policy(Protocol):
    """Draws the values of a trial from those before it."""

    def draw(self, turn: int, ended: Sequence[Rewarded]) -> dict[str, Any]:
        """Return a value for each range, for the trial with this number, from 1."""


@dataclass(frozen=True)
class Decision:
    """A range as a few values, the largest network last; `removes`: it says which layers there are."""

    name: str
    values: tuple[Any, ...]
    removes: bool

    @classmethod
    def of(cls, one: Range) -> "Decision":
        """Return the values of a range: all of a few, ten of a span."""
        if one.one_of:
            numbers = all(isinstance(value, (int, float)) for value in one.one_of)
            values = tuple(sorted(one.one_of)) if numbers else one.one_of
        elif one.whole and one.high - one.low < CHOICES:
            values = tuple(range(int(one.low), int(one.high) + 1))
        else:
            ends = (math.log(one.low), math.log(one.high)) if one.even_ratios else (one.low, one.high)
            steps = [ends[0] + (ends[1] - ends[0]) * step / (CHOICES - 1) for step in range(CHOICES)]
            floats = [min(max(math.exp(step) if one.even_ratios else step, one.low), one.high) for step in steps]
            values = tuple(dict.fromkeys(round(value) if one.whole else value for value in floats))
        return cls(one.name, values, REMOVES.search(one.name) is not None)

    def place(self, value: Any) -> int:
        """Return the place of a value, or of the nearest one."""
        if value in self.values:
            return self.values.index(value)
        return min(range(len(self.values)), key=lambda at: abs(self.values[at] - value))


class Actor(nn.Module):
    """An LSTM over decisions, with the logits of each one's values; in both directions, or one after the other.

    In both directions it decides on all layers at once, as the paper's removal policy; otherwise each decision sees the ones
    before it, as the shrinkage policy.
    """

    def __init__(self, decisions: Sequence[Decision], together: bool) -> None:
        super().__init__()
        self.decisions, self.together = decisions, together
        self.most = max(len(one.values) for one in decisions)
        self.lstm = nn.LSTM(4, HIDDEN, batch_first=True, bidirectional=together)
        self.head = nn.Linear(HIDDEN * (2 if together else 1), self.most)

    def features(self, at: int, before: float) -> list[float]:
        """Return what a decision looks like: its place, its number of values, and the value chosen before it."""
        count = len(self.decisions)
        return [at / count, len(self.decisions[at].values) / self.most, float(at == 0), before]

    def masked(self, logits: Tensor, at: int) -> Tensor:
        """Return logits of the values that a decision has."""
        return logits[: len(self.decisions[at].values)].log_softmax(0)

    def forward(
        self, chosen: Sequence[int] | None, generator: torch.Generator | None = None
    ) -> tuple[list[int], Tensor]:
        """Return the places of the values, those `chosen` or drawn ones, and the log of their probability."""
        if self.together:
            rows = torch.tensor([[self.features(at, 0.0) for at in range(len(self.decisions))]])
            outputs = self.head(self.lstm(rows)[0][0])
            picked = [self.pick(outputs[at], at, chosen, generator) for at in range(len(self.decisions))]
        else:
            picked, state, before = [], None, 0.0
            for at, decision in enumerate(self.decisions):
                made, state = self.lstm(torch.tensor([[self.features(at, before)]]), state)
                picked.append(self.pick(self.head(made[0, 0]), at, chosen, generator))
                before = picked[-1][0] / len(decision.values)
        return [place for place, _ in picked], torch.stack([log for _, log in picked]).sum()

    def pick(
        self, logits: Tensor, at: int, chosen: Sequence[int] | None, generator: torch.Generator | None
    ) -> tuple[int, Tensor]:
        """Return the place of one value and the log of its probability."""
        logs = self.masked(logits, at)
        if chosen is not None:
            return chosen[at], logs[chosen[at]]
        place = int(torch.multinomial(logs.detach().exp(), 1, generator=generator))
        return place, logs[place]


@dataclass(frozen=True)
class RemoveThenShrink:
    """Network to network compression by policy gradients.  Ashok, Rhinehart, Beainy, Kitani, 2018.

    The first half of the trials decides which layers there are, at full width, the second half how large the layers of the
    best of these are. A range is about layers if it belongs to prune/blocks, or is called depth, blocks, layers or repeats.
    Both policies are LSTMs that learn by REINFORCE from the reward C (2 - C) A / A0, less a moving mean, -1 where a limit is
    missed. For each draw they are trained again from the trials so far, which takes milliseconds and makes the same draws in
    every process.
    """

    decisions: tuple[Decision, ...]
    seed: int
    removal: int
    """Trials of the first phase."""

    @classmethod
    def of(cls, ranges: Sequence[Range], seed: int, most: int | None) -> "RemoveThenShrink":
        """Return the policy for a search of at most so many trials."""
        decisions = tuple(Decision.of(one) for one in ranges)
        kinds = {one.removes for one in decisions}
        half = FEWEST if most is None else max(1, most // 2)
        return cls(decisions, seed, half if len(kinds) == 2 else 0 if kinds == {False} else 10**9)

    def draw(self, turn: int, ended: Sequence[Rewarded]) -> dict[str, Any]:
        """Return a value for each range, for the trial with this number, from 1."""
        first = turn <= self.removal
        free = [one for one in self.decisions if one.removes == first]
        mine = list(ended[: self.removal] if first else ended[self.removal :])
        held = self.held(first, ended)
        actor, generator = self.trained(free, first, mine), torch.Generator().manual_seed(self.seed * 1_000_003 + turn)
        with torch.no_grad():
            places, _ = actor(None, generator)
        return held | {one.name: one.values[place] for one, place in zip(free, places, strict=True)}

    def held(self, first: bool, ended: Sequence[Rewarded]) -> dict[str, Any]:
        """Return the values that a phase does not choose: the largest, or those of the best removal."""
        fixed = [one for one in self.decisions if one.removes != first]
        before = ended[: self.removal]
        if first or not before or not fixed:
            return {one.name: one.values[-1] for one in fixed}
        best = max(before, key=lambda one: one.reward)
        return {one.name: best.point[one.name] for one in fixed}

    def trained(self, free: Sequence[Decision], first: bool, ended: Sequence[Rewarded]) -> Actor:
        """Return the policy of a phase after one step for every few of its trials."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.seed)
            actor = Actor(free, first)
        optimizer, mean = torch.optim.Adam(actor.parameters(), lr=LR), 0.0
        for start in range(0, len(ended) - ROLLOUTS + 1, ROLLOUTS):
            batch = ended[start : start + ROLLOUTS]
            terms = []
            for one in batch:
                places = [decision.place(one.point[decision.name]) for decision in free]
                terms.append(-actor(places)[1] * (one.reward - mean))
            optimizer.zero_grad()
            torch.stack(terms).mean().backward()
            optimizer.step()
            rewards = sum(one.reward for one in batch) / len(batch)
            mean = rewards if start == 0 else MEMORY * mean + (1 - MEMORY) * rewards
        return actor
