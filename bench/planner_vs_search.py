"""planner_vs_search: the planner against black-box search over the same ways to hold each weight; weights only, nothing trained.
LeNet-5 and ResNet-20; ResNet-56 is a bench of its own, planner_vs_search_56.

The search (Optuna's multivariate TPE, and NSGA-II; the better one counts) has three times the planner's time for each size
and sampler; the planner's is for all of its statistics, the plans it measures and one plan carried out. Both in seconds of
the processor, on one thread, as other work goes on beside. What the search is given besides stands in bench/black_box.py.
KL and accuracy are of the test images, which are looked at once for each mix.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from bench.allocation import LEVELS, accuracy, answers, evenly, size
from bench.black_box import BEST, REACH, MatchedPass, Options, options_of, searched
from bench.kept import kept
from bench.networks import trained
from bench.result import row
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.compare.divergence import divergence_for
from cortado.planner.allocate.measured_plans import mean_divergences
from cortado.planner.allocate.plan import Plan
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve, chosen, planned, size_accuracy_curve
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.sensitivity.checks import (
    DOMINATED,
    EACH,
    MEASURED_ABOVE,
    MOST_SAMPLES,
    MULTIPLY_ADDS,
    NOT_WORTH_MEASURING,
    TRUSTED_BELOW,
)
from cortado.task.outputs.classes import Classes
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
SAMPLERS = ("TPE", "NSGA-II")
TIMES, BAR = 3.0, 1.0
"""As often as the planner's time the search has; KL of the planner over the search's."""
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Task]]] = {
    "LeNet-5": lambda: trained("LeNet-5", 0),
    "ResNet-20": lambda: (resnet_20(weights=True).eval(), cifar10.task()),
    "ResNet-56": lambda: (resnet_56(weights=True).eval(), cifar10.task()),
}
DOUBT = (MOST_SAMPLES, MULTIPLY_ADDS, TRUSTED_BELOW, MEASURED_ABOVE, EACH, NOT_WORTH_MEASURING, DOMINATED)
"""What the planner measures and believes; pieces are kept by it."""


def run() -> list[dict[str, Any]]:
    """Both networks; each piece is kept when it is done."""
    return [one for name in ("LeNet-5", "ResNet-20") for one in Contest(name).rows()]


class Contest:
    """Both sides on one network."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.original, self.task = NETWORKS[name]()
        self.curve: SizeAccuracyCurve | None = None
        self.options: list[Options] = []
        self.network: MatchedPass | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One row a size."""
        ours = self.kept("planner", [], self.planner)
        found = []
        for levels, bits in LEVELS.items():
            room, mine = ours["rooms"][str(levels)], ours["plans"][str(levels)]
            limit = TIMES * ours["seconds"]
            theirs = {
                sampler: self.kept(f"{levels} {sampler}", [limit, REACH], partial(self.search, sampler, room, limit))
                for sampler in SAMPLERS
            }
            best = min(theirs, key=lambda sampler: theirs[sampler]["kl"])
            facts = {f"search, {sampler}": one for sampler, one in theirs.items()}
            what = f"{self.name}, at the bytes of {bits}: KL of the planner over the search's"
            found.append(
                row(
                    what,
                    mine["kl"] / theirs[best]["kl"],
                    "x",
                    BAR,
                    bytes=room,
                    planner=mine,
                    better_sampler=best,
                    **facts,
                    planner_seconds=ours["seconds"],
                    search_seconds=limit,
                )  # fmt: skip
            )
        return found

    def kept(self, piece: str, settings: list[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return kept(
            f"planner_vs_search/{self.name}_{piece}".replace(" ", "_"), [CANDIDATE_RECIPES, *DOUBT, *settings], make
        )

    def planner(self) -> dict[str, Any]:
        """Forecast once, then a plan for each size; seconds are those of the forecast and of the longest plan."""
        seconds = self.foresee()
        assert self.curve is not None
        paths = {one.path for one in self.curve.choices}
        rooms = {levels: size(evenly(self.original, list(paths), levels), self.original, paths) for levels in LEVELS}
        plans, longest = {}, 0.0
        for levels, room in rooms.items():
            start = time.process_time()
            plan = self.curve.plan(room + self.curve.rest_bytes)
            assert plan is not None
            made = planned(plan, self.original, self.original, self.task)
            longest = max(longest, time.process_time() - start)
            plans[str(levels)] = self.judged(plan, made)
        print(f"{self.name}: planner {seconds + longest:.1f} s, {plans}", flush=True)
        return {"seconds": seconds + longest, "rooms": {str(key): room for key, room in rooms.items()}, "plans": plans}

    def foresee(self) -> float:
        """Seconds of the processor that the forecast takes."""
        start = time.process_time()
        self.curve = size_accuracy_curve(self.original, self.original, self.task)
        return time.process_time() - start

    def search(self, sampler: str, room: float, seconds: float) -> dict[str, Any]:
        """The best mix that one sampler finds: of its best trials the one that is best on validation data."""
        if self.network is None:
            if self.curve is None:
                self.foresee()
            assert self.curve is not None
            self.options = options_of(self.curve.choices, self.original, self.task)
            self.network = MatchedPass(self.original, self.task)
        plans, trials = searched(sampler, self.options, self.network, room, seconds, SEEDS[0])
        made = [planned(plan, self.original, self.original, self.task) for plan in plans]
        nats = divergence_for(self.original, self.task)
        kls = mean_divergences(self.original, made, chosen(self.task), nats)
        best = kls.index(min(kls))
        found = {**self.judged(plans[best], made[best]), "trials": trials, "looked_at_again": BEST}
        print(f"{self.name}, {room} B, {sampler}: {found}", flush=True)
        return found

    def judged(self, plan: Plan, made: nn.Module) -> dict[str, Any]:
        """Bytes of the weights' records, KL on choice and on test images, accuracy on the latter."""
        wanted, given = answers(self.original, self.task.test), answers(made, self.task.test)
        paths = list(plan.chosen)
        return {
            "bytes": size(made, self.original, paths),
            "kl": float(Classes().divergence(wanted[:, None], given[:, None]).mean()),
            "kl_choice": mean_divergences(
                self.original, [made], chosen(self.task), divergence_for(self.original, self.task)
            )[0],
            "score": accuracy(given, self.task),
            "agrees": 100 * float((wanted.argmax(1) == given.argmax(1)).double().mean()),
        }
