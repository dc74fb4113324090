"""conditional/thresholds: from which confidence on a sample stops early, so that little is lost for sure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadTask, NothingChanged
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.graph.choices import choices_in
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.blocks.rows import NEVER, FirstSure, confidence, left_at
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.measure import metric_shares, scored
from cortado.task.metric import Metric
from cortado.task.task import Task

GRID = tuple(1.0 - 10.0**power for power in torch.linspace(-4, -0.1, 80).tolist())
"""Confidences from strict to loose."""
BY_HEART, ENOUGH = 0.999, 100
"""From this score on, over that many samples, the data count as known by heart."""
ANSWERS = Need(
    "an answer before the last", lambda method, view, task: sures_in(view.network),
    "put conditional/exits or conditional/cascade before",
)  # fmt: skip


@dataclass(frozen=True)
class ConditionalThresholds(Method):
    """Let samples stop at the first answer above a confidence: the loosest ones that lose little for sure.

    A sample is harmed if it stops early with a worse score than the last answer has. Confidences go from strict to loose,
    and end where the upper bound of the share of harmed samples (Clopper and Pearson, 1934), true with probability `sure`,
    passes `lose`: a sequence of tests in a fixed order (Angelopoulos et al., Learn then Test, 2021). Of several early answers,
    one half of the data says in which order their confidences fall, by multiply-adds saved for each sample harmed, and the
    other half how far. Needs validation data that the network has not seen: a network that knows them by heart is always sure
    there. The last stage of a recipe, since any later change of a weight moves confidences.
    """

    ends: ClassVar[bool] = True
    leaves = (Leaves.FLOATS,)
    needs = (ANSWERS,)

    lose: float = knob(1.0, low=0.0, high=100.0, help="harmed samples, in percent of all, at most")
    sure: float = knob(0.9, low=0.5, high=0.999999, help="probability with which that is so on new data")
    seen: bool = knob(
        False, help="true: accept data that the network knows by heart; the bound then speaks of such data alone"
    )

    def apply(self, view: View, task: Task) -> None:
        view.weights(self.where)
        ANSWERS.require(self, view, task)
        found = early_answers(view.network, task)
        self.check(found, view, task)
        costs = stopping_costs(view, found.sures)
        path, judged = self.path(found, costs)
        chosen = self.loosest(path, judged)
        if chosen is None:
            raise NothingChanged(
                f"{self.name()}: no sample may stop early: with {judged.count} samples, harm to {self.lose:g} % cannot be ruled "
                f"out with probability {self.sure:g} even at the strictest confidence. Raise lose, or give more validation data."
            )
        places = iter(chosen)
        for sure in found.sures:
            sure.thresholds.copy_(torch.tensor([next(places) for _ in sure.choices]))
        view.notes += self.notes(judged, chosen, costs)

    def check(self, found: "EarlyAnswers", view: View, task: Task) -> None:
        """Raise BadNetwork for confidences that are no numbers, NothingChanged for data that the network knows by heart."""
        if bool(torch.isnan(found.confidences).any()):
            raise BadNetwork(
                f"{self.name()}: some confidence is NaN on the validation data. Load or train valid weights."
            )
        last = float(found.shares[-1].mean())
        if not self.seen and last >= BY_HEART and found.count >= ENOUGH:
            raise NothingChanged(
                f"{self.name()}: the last answer is right on {last:.1%} of {found.count} validation samples: it seems to know "
                "them by heart, and confidences there say nothing of new data. Give other validation data, or write seen: true."
            )

    def path(self, found: "EarlyAnswers", costs: Sequence[float]) -> tuple[list[tuple[float, ...]], "EarlyAnswers"]:
        """Return confidences from strict to loose, and the samples on which to walk them."""
        if len(found.confidences) == 1:
            return [(one,) for one in GRID], found
        laid, judged = found.part(0), found.part(1)
        return laid_path(laid, costs), judged

    def loosest(self, path: Sequence[tuple[float, ...]], judged: "EarlyAnswers") -> tuple[float, ...] | None:
        """Return the last confidences on a path that keep the bound; None if none do."""
        kept = None
        for thresholds in path:
            harmed = int(judged.harmed(thresholds).sum())
            if upper_bound(harmed, judged.count, self.sure) > self.lose / 100:
                break
            kept = thresholds
        return kept

    def notes(self, found: "EarlyAnswers", thresholds: Sequence[float], costs: Sequence[float]) -> list[str]:
        """Return where samples stop, what that saves, and which answers do not pay."""
        shares = found.stopping(thresholds)
        harmed = int(found.harmed(thresholds).sum())
        above = ", ".join(f"{one:.4f}" for one in thresholds)
        notes = [
            f"samples stop above a confidence of {above}: {', '.join(f'{share:.0%}' for share in shares)} at the answers "
            f"in order; {harmed} of {found.count} validation samples are harmed, at most "
            f"{upper_bound(harmed, found.count, self.sure):.2%} of new ones with probability {self.sure:g}"
        ]
        expected = sum(share * cost for share, cost in zip(shares, costs, strict=True))
        notes.append(f"multiply-adds of a sample: {expected:,.0f} on average, {costs[-1]:,.0f} to the last answer")
        return notes + [
            f"answer {place + 1} does not pay: {share:.0%} of the samples that reach it stop there, and it takes {cost:.0%} "
            "of the multiply-adds from there on. Leave it out."
            for place, share, cost in idle_answers(shares, costs)
        ]


@dataclass(frozen=True)
class EarlyAnswers:
    """All answers on the validation data, from the first to the last.

    `confidences` (answers - 1, samples) and `shares` (answers, samples), the score of each answer; higher is better.
    """

    sures: tuple[FirstSure, ...]
    confidences: Tensor
    shares: Tensor

    @property
    def count(self) -> int:
        return self.shares.shape[1]

    def part(self, number: int) -> "EarlyAnswers":
        """Return every second sample, from the first or from the second on."""
        return EarlyAnswers(self.sures, self.confidences[:, number::2], self.shares[:, number::2])

    def stops(self, thresholds: Sequence[float]) -> Tensor:
        """Return the place of the answer that each sample gets, (samples,)."""
        return left_at([~(row > one) for row, one in zip(self.confidences, thresholds, strict=True)])

    def stopping(self, thresholds: Sequence[float]) -> list[float]:
        """Return the share of samples that get each answer."""
        stops = self.stops(thresholds)
        return [float((stops == place).double().mean()) for place in range(len(self.shares))]

    def harmed(self, thresholds: Sequence[float]) -> Tensor:
        """Return which samples get a worse answer than the last, (samples,)."""
        return self.shares.gather(0, self.stops(thresholds)[None])[0] < self.shares[-1]

    def mean_cost(self, thresholds: Sequence[float], costs: Sequence[float]) -> float:
        """Return the mean cost of a sample, from the cost of stopping at each answer."""
        return float(torch.tensor(costs, dtype=torch.double)[self.stops(thresholds)].mean())


def idle_answers(shares: Sequence[float], costs: Sequence[float]) -> list[tuple[int, float, float]]:
    """Return the answers that do not pay, from the share of samples that stop at each and its cost from the start.

    Each with its place, the share that stops there of the samples that reach it, and its own share of the cost from there on,
    which is larger.
    """
    found = []
    for place, share in enumerate(shares[:-1]):
        reaching = sum(shares[place:])
        own, rest = costs[place] - (costs[place - 1] if place else 0.0), costs[-1] - costs[place]
        if rest and reaching and share / reaching < own / (own + rest):
            found.append((place, share / reaching, own / (own + rest)))
    return found


def laid_path(found: EarlyAnswers, costs: Sequence[float]) -> list[tuple[float, ...]]:
    """Return confidences from strict to loose: those of one answer fall at a time, where that saves most for the harm."""
    places = [0] * len(found.confidences)
    path = [tuple(GRID[place] for place in places)]
    while True:
        answer, target = best_fall(found, costs, places)
        if target is None:
            return path
        while places[answer] < target:
            places[answer] += 1
            path.append(tuple(GRID[place] for place in places))


def best_fall(found: EarlyAnswers, costs: Sequence[float], places: Sequence[int]) -> tuple[int, int | None]:
    """Return the answer whose confidence should fall next, and how far, as a place of GRID; None where all are loose."""
    harm, cost = costs_at(found, costs, places)
    best: tuple[float, int, int | None] = (0.0, 0, None)
    for answer, place in enumerate(places):
        for target in range(place + 1, len(GRID)):
            more, less = costs_at(found, costs, [*places[:answer], target, *places[answer + 1 :]])
            # One harmed sample more than seen, so that a fall without harm is not worth everything.
            worth = (cost - less) / (max(more - harm, 0.0) + 1.0)
            best = max(best, (worth, answer, target), key=lambda one: one[0])
    return best[1:]


def costs_at(found: EarlyAnswers, costs: Sequence[float], places: Sequence[int]) -> tuple[float, float]:
    """Return the number of harmed samples and the mean cost at some places of GRID."""
    thresholds = [GRID[place] for place in places]
    return float(found.harmed(thresholds).sum()), found.mean_cost(thresholds, costs)


def sures_in(network: nn.Module) -> list[FirstSure]:
    """Return the modules of a network that choose among answers."""
    return [module for module in network.modules() if isinstance(module, FirstSure)]


def early_answers(network: nn.Module, task: Task) -> EarlyAnswers:
    """Return all answers on the validation data.  Raises BadTask for a metric without a score for each sample."""
    metric = task.metric
    if metric.whole is not None or metric.value is not None:
        raise BadTask(
            f"conditional/thresholds: the metric {metric.name!r} is no mean over samples, so that no single sample can be "
            "harmed. Give the task one with a score for each sample, such as accuracy."
        )
    called: list[tuple[FirstSure, tuple[Tensor, ...]]] = []
    sures = sures_in(network)
    before = [sure.thresholds.clone() for sure in sures]
    handles = [sure.register_forward_pre_hook(lambda module, given: called.append((module, given))) for sure in sures]
    confidences: list[Tensor] = []
    rows: list[list[Any]] = []
    order: list[FirstSure] = []
    try:
        for sure in sures:
            sure.thresholds.fill_(NEVER)
        with eval_mode(network):
            for inputs, targets in task.validation.batches(256):
                called.clear()
                last = call(network, to_device(inputs, own_device(network)))
                # The one that is asked first is called last: what follows it is inside.
                order = [sure for sure, _ in reversed(called)]
                early = [(answer, sure.rule) for sure, given in reversed(called) for answer in given[:-1]]
                confidences.append(torch.stack([confidence(answer, rule).cpu() for answer, rule in early]))
                answers = [*(answer for answer, _ in early), last]
                rows = rows or [[] for _ in answers]
                for kept, answer in zip(rows, answers, strict=True):
                    kept.append(scored(metric, answer, targets))
    finally:
        for handle in handles:
            handle.remove()
        for sure, thresholds in zip(sures, before, strict=True):
            sure.thresholds.copy_(thresholds)
    return EarlyAnswers(tuple(order), torch.cat(confidences, 1), answer_scores(metric, rows))


def answer_scores(metric: Metric, rows: Sequence[list[Any]]) -> Tensor:
    """Return (answers, samples): the score of each sample, higher is better."""
    found = torch.stack([metric_shares(metric, kept).double().cpu() for kept in rows])
    return found if metric.higher_is_better else -found


def stopping_costs(view: View, sures: Sequence[FirstSure]) -> list[float]:
    """Return the multiply-adds of a sample that stops at each answer, from the first to the last."""
    table = profile(view.network, view.example)
    paths = {id(module): path for path, module in view.network.named_modules()}
    total = table.total("multiply_adds").value
    rows = {row.path: row.multiply_adds or 0.0 for row in table.rows}
    after = {
        id(choice.module): sum(rows.get(paths[layer], 0.0) for layer in choice.inside)
        for choice in choices_in(view.graph)
    }
    return [*(total - after.get(id(choice), 0.0) for sure in sures for choice in sure.choices), total]


def upper_bound(harmed: int, count: int, sure: float) -> float:
    """Return the upper bound of a share of which `harmed` of `count` were seen, true with probability `sure`.

    Clopper and Pearson, 1934: the share at which so few or fewer are seen with probability 1 - sure.
    """
    if harmed >= count:
        return 1.0
    low, high = harmed / count, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(harmed, count, middle) > 1 - sure else (low, middle)
    return high


def at_most(seen: int, count: int, share: float) -> float:
    """Return the probability of `seen` successes or fewer among `count` independent trials."""
    if share <= 0.0 or share >= 1.0:
        return float(share <= 0.0 or seen >= count)
    one, other = math.log(share), math.log1p(-share)
    ways = math.lgamma(count + 1)
    terms = (
        ways - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * one + (count - k) * other for k in range(seen + 1)
    )
    return min(1.0, sum(math.exp(term) for term in terms))
