"""Proposals: what to try next for a goal, from what is foreseen, what was measured of shapes, and what was tried."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cortado.methods.finetune import Finetune
from cortado.methods.prune.rate_distortion import PruneRateDistortion
from cortado.planner.allocate.feasibility import Feasibility
from cortado.planner.allocate.mix import Mix
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve
from cortado.planner.search.proposal import INTEGERS, Proposal, stages_of
from cortado.planner.search.shapes import Shape, integers
from cortado.planner.search.trials import SearchGoal, Trial, epochs_of
from cortado.report.candidate import pareto_front

SHRINK, CLOSE = 0.75, 1.06
"""How much smaller the next trial is after one that kept its limits; sizes nearer than this factor are not told apart."""
NEARLY = 0.97
"""A shape is only taken for a limit of time if it leaves this much room: the next measurement will differ a little."""
MILD = 0.5
"""Nats at once after the cut that a recovery is expected to make good."""
LR = 1e-3
RECOVERY: dict[str, Any] = {"lr": 3e-4, "teacher": 0.5, "average": 0.3, "statistics": "kept"}
"""Short and gentle: a part of an epoch is too little to get used to moving statistics."""
ROOM = 0.995
"""Of a limit of bytes is aimed at: what is trained or rounded afterwards moves a file by a few of them."""
MOST_TARGETS = 4
"""How often a file that came out over its limit is aimed lower."""
FOR_BYTES = "trained for bytes"
EXPECTED_KL, STRONGER = 0.6, 1.6
"""What all bits of a file weigh together in the loss when they are trained for, at first; and how much more next time."""


@dataclass
class Proposals:
    """`shapes` are those at hand, the original first; `more` cuts others, once, when the original shape is exhausted.

    `tail` are stages after everything else, a line of a recipe, or "". `curve` is None where no bytes count.
    """

    wanted: SearchGoal
    shapes: Sequence[Shape]
    curve: SizeAccuracyCurve | None = None
    tail: str = ""
    more: Callable[[], Sequence[Shape]] = tuple
    others: list[Shape] | None = field(default=None)

    def next(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """What to try next, with so many `epochs` of recovery for a shape; None where nothing is left to try."""
        candidate_recipes = {"size": self.smaller, "latency": self.faster, "loss": self.milder}
        wants_score = self.wanted.limit("score") is not None
        found = candidate_recipes[self.wanted.minimise if wants_score else "loss"](trials, epochs)
        # What was tried gives what it gave.
        return None if found is None or any(one.recipe == found.recipe for one in trials) else found

    def allowed(self) -> list[Shape]:
        """The shapes that a limit of time allows, the least harmful first; the fastest one where it allows none."""
        if not self.wanted.time_counts:
            return [self.shapes[0]]
        limit = self.wanted.limit("latency")
        usable = [one for one in self.shapes if one.latency_ms is not None and (one.cut or one.integers or self.curve)]
        if self.wanted.minimise == "latency":
            # What is slower than the original network is no answer, if there is another.
            original_ms = self.shapes[0].latency_ms or math.inf
            usable = [one for one in usable if (one.latency_ms or 0.0) < original_ms] or usable
        fits = [one for one in usable if limit is None or (one.latency_ms or 0.0) <= NEARLY * limit.value]
        if not fits and usable:
            fits = [min(usable, key=lambda one: one.latency_ms or 0.0)]
        return sorted(fits, key=lambda one: (one.kl, one.latency_ms))

    def milder(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """The least loss: the mildest shape as it is, then recovered, then the next ones; last, training for bytes."""
        order = self.allowed()
        for number, shape in enumerate(order[:3]):
            size = self.milder_size(shape, trials)
            tries = [self.proposal(shape, size, 0.0)] if number == 0 else []
            if epochs(shape) > 0:
                tries.append(self.proposal(shape, size, epochs(shape)))
            for one in tries:
                own = [trial for trial in trials if same(trial, one)]
                if not own or (not self.wanted.keeps("size", own[-1]) and len(own) < MOST_TARGETS):
                    return one
        return self.within_bytes(order, trials, epochs)

    def within_bytes(
        self, order: Sequence[Shape], trials: Sequence[Trial], epochs: Callable[[Shape], float]
    ) -> Proposal | None:
        """prune/rate_distortion as strong as a limit of bytes asks: stronger while the file is over it, weaker while it is far below."""
        limit, own = self.wanted.limit("size"), [one for one in trials if one.shape == FOR_BYTES]
        if limit is None or self.wanted.time_counts or not order or epochs(order[0]) <= 0 or len(own) >= MOST_TARGETS:
            return None
        fits, over = ([one for one in own if self.wanted.keeps("size", one) is good] for good in (True, False))
        weakest, strongest = min(map(strength_of, fits), default=0.0), max(map(strength_of, over), default=0.0)
        large, least = (
            max([one.size_bytes for one in fits], default=0.0),
            min([one.size_bytes for one in over], default=0.0),
        )
        if any(one.failed for one in own) or large * CLOSE > limit.value or (fits and weakest < CLOSE * strongest):
            return None
        strength = (weakest * strongest) ** 0.5 or EXPECTED_KL / (8 * limit.value)
        if over and not fits:
            strength = strongest * max(STRONGER, least / limit.value)
        elif fits and not over:
            strength = weakest / max(STRONGER, limit.value / large)
        return self.for_bytes(strength, epochs(order[0]))

    def milder_size(self, shape: Shape, trials: Sequence[Trial]) -> float | None:
        """The bytes to hold a shape in; fewer by as many as its last trial was over its limit."""
        if self.curve is None:
            return None
        size, limit = self.first_size(self.curve), self.wanted.limit("size")
        own = [one for one in trials if one.shape == shape.text() and one.done]
        if limit is None or not own or self.wanted.keeps("size", own[-1]):
            return size
        aimed = [one for one in own if not self.wanted.keeps("size", one)]
        for one in aimed:
            size *= min(1.0, ROOM * limit.value / one.size_bytes)
        return max(size, self.curve.sizes[0])

    def faster(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """The fastest that keeps the score: halving in between what kept it and what did not."""
        order = [one for one in front_of(self.allowed()) if one.cut or one.integers or self.curve]
        size = None if self.curve is None else self.first_size(self.curve)
        kept = {trial.shape for trial in trials if self.wanted.keeps("score", trial)}
        lost = {trial.shape for trial in trials if trial.shape not in kept and (trial.trained or trial.failed)}
        low = max((place for place, one in enumerate(order) if one.text() in kept), default=-1)
        high = min((place for place, one in enumerate(order) if one.text() in lost and place > low), default=len(order))
        if high - low < 2:
            return None
        mild = [place for place in range(low + 1, high) if order[place].kl <= MILD]
        # At first the fastest of the mild ones; then the middle.
        place = mild[-1] if mild and all(one.shape == INTEGERS for one in trials) else (low + high) // 2
        shape = order[place]
        return self.proposal(shape, size, epochs(shape))

    def smaller(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """The smallest file that keeps the score: a mix as it is; then mixes that recover, and training for bytes, by
        turns; what reached the smallest file goes on first. Last, other shapes."""
        assert self.curve is not None
        base = next(iter(self.allowed()), None)
        if base is None:
            return None
        if not any("allocate" in stage for one in trials for stage in one.recipe["stages"]):
            return self.proposal(base, self.first_size(self.curve), 0.0)
        if epochs(base) <= 0 or self.harmed(base, trials):
            return self.recovered(base, trials, 0.0)
        trained = [one for one in trials if one.trained and self.wanted.keeps("score", one)]
        leads = bool(trained) and min(trained, key=lambda one: one.size_bytes).shape == FOR_BYTES
        candidate_recipes: list[Callable[[], Proposal | None]] = [
            lambda: self.recovered(base, trials, epochs(base)),
            lambda: self.trained_for_bytes(base, trials, epochs(base)),
        ]
        tries = [sum(one.trained and one.shape == shape for one in trials) for shape in (base.text(), FOR_BYTES)]
        if min(tries) == 0:
            candidate_recipes = candidate_recipes if tries[0] == 0 else candidate_recipes[::-1]
        elif leads:
            candidate_recipes = candidate_recipes[::-1]
        found = (way() for way in candidate_recipes)
        return next((one for one in found if one is not None), None) or self.another_shape(trials, epochs)

    def harmed(self, shape: Shape, trials: Sequence[Trial]) -> bool:
        """Whether training has made it worse than it was in no more bytes, as too few samples do."""
        own, sign = [one for one in trials if one.shape == shape.text() and one.done], self.wanted.sign
        pairs = [(one, other) for one in own for other in own if one.trained and not other.trained]
        return any(sign * a.score < sign * b.score and b.size_bytes <= a.size_bytes for a, b in pairs)

    def recovered(self, shape: Shape, trials: Sequence[Trial], epochs: float) -> Proposal | None:
        """The next mix that recovers."""
        assert self.curve is not None
        size = self.smaller_size(shape, trials, self.curve, epochs > 0)
        return None if size is None else self.proposal(shape, size, epochs)

    def trained_for_bytes(self, base: Shape, trials: Sequence[Trial], epochs: float) -> Proposal | None:
        """The next strength of prune/rate_distortion, which trains the bytes themselves: rising until the score is lost, then in
        between. None where what kept the score and what did not are close, or where the network must run in whole numbers.
        """
        own = [one for one in trials if one.shape == FOR_BYTES and one.done]
        if base.cut or base.integers or any(one.shape == FOR_BYTES and one.failed for one in trials):
            return None
        kept, lost = ([one for one in own if self.wanted.keeps("score", one) is good] for good in (True, False))
        strongest = max(map(strength_of, kept), default=0.0)
        weakest = min((value for value in map(strength_of, lost) if value > strongest), default=0.0)
        if strongest and weakest:
            sizes = [one.size_bytes for one in own if strength_of(one) in (strongest, weakest)]
            if max(sizes) / min(sizes) < CLOSE:
                return None
            strength = (strongest * weakest) ** 0.5
        elif own:
            strength = strongest * stronger(kept) if strongest else weakest / STRONGER
        else:
            good = [one.size_bytes for one in trials if self.wanted.keeps("score", one)]
            target = self.at_most(SHRINK * min(good, default=trials[0].size_bytes))
            strength = EXPECTED_KL / (8 * max(target, 1.0))
        return self.for_bytes(strength, epochs)

    def for_bytes(self, strength: float, epochs: float) -> Proposal:
        """prune/rate_distortion so strong, and the tail."""
        lr = PruneRateDistortion(
            strength=float(f"{strength:.3g}"), epochs=0.75 * epochs, finish=0.25 * epochs, lr=LR, teacher="original",
            bias=False,
        )  # fmt: skip
        return Proposal.of((lr, *stages_of(self.tail)), FOR_BYTES)

    def smaller_size(
        self, shape: Shape, trials: Sequence[Trial], found: SizeAccuracyCurve, training: bool
    ) -> float | None:
        """The bytes to try next with a shape; None where what kept the score and what did not are close."""
        own = [one for one in trials if one.shape == shape.text() and one.done]
        good = [one.size_bytes for one in own if self.wanted.keeps("score", one)]
        reported = [one for one in own if one.trained is training]
        bad = [one.size_bytes for one in reported if not self.wanted.keeps("score", one)]
        lowest = max(bad, default=0)
        if not good:
            size = float(self.first_size(found)) if not bad else max(bad) / SHRINK
        else:
            steps = min(3, sum(one.trained and self.wanted.keeps("score", one) for one in own) or 1)
            size = min(good) * SHRINK**steps if not lowest else (min(good) * lowest) ** 0.5
        tried = [one.size_bytes for one in reported]
        if good and (size < found.sizes[0] or min(good) / max(size, lowest) < CLOSE):
            return None
        size = self.at_most(size)
        # A file that is over its limit by a little is not too near to one that is not.
        near = CLOSE if not own or self.wanted.keeps("size", own[-1]) else 1.0
        if any(1 / near < size / one < near for one in tried) or not found.sizes[0] <= size <= found.sizes[1]:
            return None
        return size

    def at_most(self, size: float) -> float:
        """So many bytes, or what a limit of bytes allows if that is less."""
        limit = self.wanted.limit("size")
        return size if limit is None else min(size, ROOM * limit.value)

    def another_shape(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """A cut network in fewer bytes than the best so far; each shape as long as it keeps the score."""
        good = [one.size_bytes for one in trials if self.wanted.keeps("score", one)]
        if not good or self.wanted.time_counts:
            return None
        if self.others is None:
            self.others = [one for one in self.more() if one.cut]
        for shape in self.others:
            own = [one for one in trials if one.shape == shape.text()]
            if all(self.wanted.keeps("score", one) for one in own) and len(own) < 3:
                return self.proposal(shape, self.at_most(SHRINK**0.5 * min(good)), epochs(shape))
        return None

    def first_size(self, found: SizeAccuracyCurve) -> float:
        """The limit of size, or the smallest file that is expected to keep the score without training."""
        size, score = self.wanted.limit("size"), self.wanted.limit("score")
        least, most = found.sizes
        if score is None or self.wanted.minimise != "size":
            return least if size is None else min(max(ROOM * size.value, least), most)
        feasibility = Feasibility(found, 0, "", "")
        best = feasibility.smallest(max(feasibility.allowed(score), 0.0))
        guess = most if best is None else best.size_bytes
        return max(least, min(guess, ROOM * size.value) if size is not None else guess)

    def proposal(self, shape: Shape, size: float | None, epochs: float) -> Proposal:
        """Cut, recover, hold the weights in `size` bytes for the whole file, recover, round activations, and the tail."""
        stages = list(stages_of(shape.cut))
        halves = 2 if shape.cut and size is not None else 1
        finetune = [Finetune(epochs=epochs / halves, **RECOVERY)] if epochs else []
        stages += finetune if shape.cut else []
        weights, activations = integers()
        if size is not None:
            room = float(round(max(1.0, size - shape.rest_bytes)))
            stages += [Mix(size=room, candidate_recipes="integers" if shape.integers else "any"), *finetune]
        elif shape.integers:
            stages.append(weights)
        stages += [activations] if shape.integers else []
        return Proposal.of((*stages, *stages_of(self.tail)), shape.text())


def front_of(shapes: Sequence[Shape]) -> list[Shape]:
    """Return those than which none is both faster and less harmful, the slowest first."""
    return pareto_front(shapes, lambda one: one.kl, lambda one: one.latency_ms or 0.0)


def strength_of(trial: Trial) -> float:
    """What a bit weighed in the loss."""
    return float(
        next(
            stage["prune/rate_distortion"]["strength"]
            for stage in trial.recipe["stages"]
            if "prune/rate_distortion" in stage
        )
    )


def stronger(kept: Sequence[Trial]) -> float:
    """How many times more a bit should weigh than in the strongest trial, for a file smaller by SHRINK: as the last two
    trials tell, where there are two; between STRONGER and its cube."""
    if len(kept) < 2:
        return STRONGER
    weak, strong = sorted(kept, key=strength_of)[-2:]
    shrank = math.log(weak.size_bytes / strong.size_bytes) / math.log(strength_of(strong) / strength_of(weak))
    return min(STRONGER**3, max(STRONGER, math.exp(-math.log(SHRINK) / shrank))) if shrank > 0 else STRONGER**3


def same(trial: Trial, proposal: Proposal) -> bool:
    """Whether a trial is of this shape and was recovered, or not, as the proposal is."""
    return trial.shape == proposal.shape and trial.trained == (epochs_of(proposal.recipe["stages"]) > 0)
