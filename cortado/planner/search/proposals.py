"""Proposals: the next recipe to try for a goal, from the size-accuracy curve, the measured shapes and the trials so far."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cortado.methods.finetune import Finetune
from cortado.planner.allocate.feasibility import Feasibility
from cortado.planner.allocate.mix import Mix
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve
from cortado.planner.search.for_bytes import FOR_BYTES, ROUNDED, first_strength, for_bytes, rounded_to
from cortado.planner.search.proposal import INTEGERS, Proposal, stages_of
from cortado.planner.search.shapes import Shape, integers
from cortado.planner.search.strengths import (
    CLOSE,
    SHRINK,
    STRONGER,
    harmed,
    next_strength,
    step_up,
    strength_of,
)
from cortado.planner.search.trials import SearchGoal, Trial, epochs_of
from cortado.report.candidate import pareto_front
from cortado.training.training import Training

CLOSER = 1.02
"""Sizes closer than this factor count as equal, in place of CLOSE, where a trial only rounds and learns scales."""
NEARLY = 0.97
"""Largest share of a latency limit that a shape may take: the next measurement differs a little."""
MILD = 0.5
"""KL (nats) after a cut from which finetuning is expected to recover."""
RECOVERY = Training(lr=3e-4, average=0.3, statistics="kept")
"""Short and gentle: a fraction of an epoch is too short for new running statistics."""
ROOM = 0.995
"""Target size as a share of a size limit: later training or rounding changes a file by a few bytes."""
MOST_TARGETS = 4
"""How often a file over its limit is tried again with a smaller target."""


@dataclass
class Proposals:
    """`shapes` are the measured ones, the original first; `more` measures further cuts when the original is exhausted.

    `tail`: final stages as a one-line recipe, or "". `curve` is None if bytes do not count. `rounds`: whether
    quantize/rate_distortion takes the network's weights.
    """

    wanted: SearchGoal
    shapes: Sequence[Shape]
    curve: SizeAccuracyCurve | None = None
    tail: str = ""
    more: Callable[[], Sequence[Shape]] = tuple
    others: list[Shape] | None = field(default=None)
    rounds: bool = False

    def next(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """Return the next proposal; None if nothing remains.  `epochs` gives the epochs of finetuning for a shape."""
        candidate_recipes = {"size": self.smaller, "latency": self.faster, "loss": self.milder}
        wants_score = self.wanted.limit("score") is not None
        found = candidate_recipes[self.wanted.minimise if wants_score else "loss"](trials, epochs)
        return None if found is None or any(one.recipe == found.recipe for one in trials) else found

    def allowed(self) -> list[Shape]:
        """Return the shapes within the latency limit, smallest KL first; the fastest one if none is."""
        if not self.wanted.time_counts:
            return [self.shapes[0]]
        limit = self.wanted.limit("latency")
        usable = [one for one in self.shapes if one.latency_ms is not None and (one.cut or one.integers or self.curve)]
        if self.wanted.minimise == "latency":
            # Prefer shapes that are faster than the original network.
            original_ms = self.shapes[0].latency_ms or math.inf
            usable = [one for one in usable if (one.latency_ms or 0.0) < original_ms] or usable
        fits = [one for one in usable if limit is None or (one.latency_ms or 0.0) <= NEARLY * limit.value]
        if not fits and usable:
            fits = [min(usable, key=lambda one: one.latency_ms or 0.0)]
        return sorted(fits, key=lambda one: (one.kl, one.latency_ms))

    def milder(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """Return the next proposal for least loss: the mildest shape, then finetuned, then others, last training for bytes."""
        order = self.allowed()
        for number, shape in enumerate(order[:3]):
            size = self.milder_size(shape.text(), trials)
            tries = [self.proposal(shape, size, 0.0)] if number == 0 else []
            if epochs(shape) > 0:
                tries.append(self.proposal(shape, size, epochs(shape)))
            for one in tries:
                if self.may_try([trial for trial in trials if same(trial, one)]):
                    return one
        size = self.milder_size(ROUNDED, trials) if order and self.rounds_whole(order[0]) else None
        if size is not None and self.may_try([one for one in trials if one.shape == ROUNDED]):
            return rounded_to(size - order[0].rest_bytes, epochs(order[0]), self.tail)
        return self.within_bytes(order, trials, epochs)

    def may_try(self, own: Sequence[Trial]) -> bool:
        """Return whether a way with these trials is new, or its file was over its limit, which a smaller target may mend."""
        return not own or (not self.wanted.keeps("size", own[-1]) and len(own) < MOST_TARGETS)

    def within_bytes(
        self, order: Sequence[Shape], trials: Sequence[Trial], epochs: Callable[[Shape], float]
    ) -> Proposal | None:
        """Return prune/rate_distortion at a strength that meets a size limit: more while over it, less while far below."""
        limit, own = self.wanted.limit("size"), [one for one in trials if one.shape == FOR_BYTES]
        if limit is None or self.wanted.time_counts or not order or epochs(order[0]) <= 0 or len(own) >= MOST_TARGETS:
            return None
        fits, over = ([one for one in own if self.wanted.keeps("size", one) is good] for good in (True, False))
        weakest, strongest = min(map(strength_of, fits), default=0.0), max(map(strength_of, over), default=0.0)
        large = max([one.size_bytes for one in fits], default=0)
        least = min([one.size_bytes for one in over], default=0)
        if any(one.failed for one in own) or large * CLOSE > limit.value or (fits and weakest < CLOSE * strongest):
            return None
        strength = (weakest * strongest) ** 0.5 or first_strength(limit.value)
        if over and not fits:
            strength = strongest * max(STRONGER, least / limit.value)
        elif fits and not over:
            strength = weakest / max(STRONGER, limit.value / large)
        return for_bytes(strength, epochs(order[0]), self.tail)

    def milder_size(self, shape: str, trials: Sequence[Trial]) -> float | None:
        """Return the target bytes of a shape, reduced by the excess of its last trials."""
        if self.curve is None:
            return None
        size, limit = self.first_size(self.curve), self.wanted.limit("size")
        own = [one for one in trials if one.shape == shape and one.done]
        if limit is None or not own or self.wanted.keeps("size", own[-1]):
            return size
        for one in own:
            if not self.wanted.keeps("size", one):
                size *= min(1.0, ROOM * limit.value / one.size_bytes)
        return max(size, self.curve.sizes[0])

    def faster(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """Return the next proposal for speed: bisect between shapes that kept the score and shapes that lost it."""
        order = [one for one in front_of(self.allowed()) if one.cut or one.integers or self.curve]
        size = None if self.curve is None else self.first_size(self.curve)
        kept = {trial.shape for trial in trials if self.wanted.keeps("score", trial)}
        lost = {trial.shape for trial in trials if trial.shape not in kept and (trial.trained or trial.failed)}
        low = max((place for place, one in enumerate(order) if one.text() in kept), default=-1)
        high = min((place for place, one in enumerate(order) if one.text() in lost and place > low), default=len(order))
        if high - low < 2:
            return None
        mild = [place for place in range(low + 1, high) if order[place].kl <= MILD]
        # First the fastest of the mild shapes, then the middle.
        place = mild[-1] if mild and all(one.shape == INTEGERS for one in trials) else (low + high) // 2
        shape = order[place]
        return self.proposal(shape, size, epochs(shape))

    def smaller(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """Return the next proposal for size: an untrained mix; then finetuned mixes, rounding and training for bytes, whichever
        made the smallest file first; last, other shapes.

        A mix measures every candidate again where time cut the curve short: there rounding comes first.
        """
        assert self.curve is not None
        base = next(iter(self.allowed()), None)
        if base is None:
            return None
        first = self.rounded(base, trials, epochs(base)) if self.curve.bound else None
        if first is not None:
            return first
        if not any("allocate" in stage for one in trials for stage in one.recipe["stages"]):
            return self.proposal(base, self.first_size(self.curve), 0.0)
        untrained = epochs(base) <= 0 or harmed(
            [one for one in trials if one.shape == base.text() and one.done], self.wanted.sign
        )
        ways: dict[str, Callable[[], Proposal | None]] = {
            base.text(): lambda: self.recovered(base, trials, 0.0 if untrained else epochs(base)),
            ROUNDED: lambda: self.rounded(base, trials, epochs(base)),
        }
        if not untrained:
            ways[FOR_BYTES] = lambda: self.trained_for_bytes(base, trials, epochs(base))
        made = (ways[name]() for name in self.in_turn(list(ways), trials, untrained))
        found = next((one for one in made if one is not None), None)
        return found if found is not None or untrained else self.another_shape(trials, epochs)

    def in_turn(self, names: list[str], trials: Sequence[Trial], untrained: bool) -> list[str]:
        """Return the ways not tried yet, then the one with the smallest file that keeps the score, then the others."""
        tried = [one for one in trials if untrained or one.trained]
        new = [name for name in names if not any(one.shape == name for one in tried)]
        kept = [one for one in tried if one.shape in names and self.wanted.keeps("score", one)]
        leading = [min(kept, key=lambda one: one.size_bytes).shape] if kept else []
        return list(dict.fromkeys([*new, *leading, *names]))

    def recovered(self, shape: Shape, trials: Sequence[Trial], epochs: float) -> Proposal | None:
        """Return the next finetuned mix."""
        assert self.curve is not None
        size = self.smaller_size(shape.text(), trials, self.curve, epochs > 0)
        return None if size is None else self.proposal(shape, size, epochs)

    def rounded(self, base: Shape, trials: Sequence[Trial], epochs: float) -> Proposal | None:
        """Return quantize/rate_distortion at the next size, with learned scales if there is time; None if sizes are close."""
        assert self.curve is not None
        own = [one for one in trials if one.shape == ROUNDED]
        if not self.rounds_whole(base) or any(one.failed for one in own):
            return None
        size = self.smaller_size(ROUNDED, trials, self.curve, epochs > 0)
        return None if size is None else rounded_to(size - base.rest_bytes, epochs, self.tail)

    def rounds_whole(self, shape: Shape) -> bool:
        """Return whether quantize/rate_distortion takes the weights of a shape, and no runtime needs other codes."""
        return self.rounds and not (shape.cut or shape.integers)

    def trained_for_bytes(self, base: Shape, trials: Sequence[Trial], epochs: float) -> Proposal | None:
        """Return prune/rate_distortion at the next strength; None at its end, or if the network must run in integers."""
        own = [one for one in trials if one.shape == FOR_BYTES and one.done]
        if base.cut or base.integers or any(one.shape == FOR_BYTES and one.failed for one in trials):
            return None
        kept, lost = ([one for one in own if self.wanted.keeps("score", one) is good] for good in (True, False))
        good = [one.size_bytes for one in trials if self.wanted.keeps("score", one)]
        if own:
            strength = next_strength(kept, lost, min(good, default=math.inf))
        else:
            strength = first_strength(self.at_most(SHRINK * min(good, default=trials[0].size_bytes)))
        return None if strength is None else for_bytes(strength, epochs, self.tail)

    def smaller_size(
        self, shape: str, trials: Sequence[Trial], found: SizeAccuracyCurve, training: bool
    ) -> float | None:
        """Return the next bytes to try with a shape; None once sizes that keep and lose the score are close."""
        own = [one for one in trials if one.shape == shape and one.done]
        close = CLOSER if shape == ROUNDED else CLOSE
        good = [one.size_bytes for one in own if self.wanted.keeps("score", one)]
        # What was lost with learned scales is lost without them, unless learning harms.
        both = shape == ROUNDED and not training and not harmed(own, self.wanted.sign)
        reported = [one for one in own if both or one.trained is training]
        bad = [one.size_bytes for one in reported if not self.wanted.keeps("score", one)]
        lowest = max(bad, default=0)
        if not good:
            lost = [one for one in reported if not self.wanted.keeps("score", one)]
            size = max(bad) * step_up(lost, [one for one in trials if one.keeps_all]) if bad else self.first_size(found)
        else:
            steps = min(3, sum(one.trained and self.wanted.keeps("score", one) for one in own) or 1)
            size = min(good) * SHRINK**steps if not lowest else (min(good) * lowest) ** 0.5
        tried = [one.size_bytes for one in reported]
        if good and (size < found.sizes[0] or min(good) / max(size, lowest) < close):
            return None
        size = self.at_most(size)
        # A file slightly over its limit may be retried close by.
        near = close if not own or self.wanted.keeps("size", own[-1]) else 1.0
        if any(1 / near < size / one < near for one in tried) or not found.sizes[0] <= size <= found.sizes[1]:
            return None
        return size

    def at_most(self, size: float) -> float:
        """Return `size`, or the target under a size limit if that is less."""
        limit = self.wanted.limit("size")
        return size if limit is None else min(size, ROOM * limit.value)

    def another_shape(self, trials: Sequence[Trial], epochs: Callable[[Shape], float]) -> Proposal | None:
        """Return a cut network with a smaller target than the best trial; each shape until it loses the score."""
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
        """Return the size limit, or the smallest size expected to keep the score without training."""
        size, score = self.wanted.limit("size"), self.wanted.limit("score")
        least, most = found.sizes
        if score is None or self.wanted.minimise != "size":
            return least if size is None else min(max(ROOM * size.value, least), most)
        guess = Feasibility(found, 0, "", "", self.wanted.limits).smallest_kept()
        return max(least, min(guess, ROOM * size.value) if size is not None else guess)

    def proposal(self, shape: Shape, size: float | None, epochs: float) -> Proposal:
        """Return the stages for a shape: cut, finetune, mix to a file of `size` bytes, finetune, activations, tail."""
        stages = list(stages_of(shape.cut))
        halves = 2 if shape.cut and size is not None else 1
        finetune = [Finetune(training=replace(RECOVERY, epochs=epochs / halves), teacher=0.5)] if epochs else []
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
    """Return the Pareto front of KL and latency, the slowest first."""
    return pareto_front(shapes, lambda one: one.kl, lambda one: one.latency_ms or 0.0)


def same(trial: Trial, proposal: Proposal) -> bool:
    """Return whether a trial has the proposal's shape, and both or neither are trained."""
    return trial.shape == proposal.shape and trial.trained == (epochs_of(proposal.recipe["stages"]) > 0)
