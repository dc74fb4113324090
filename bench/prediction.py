"""prediction: predicted KLs and forecast KL against what is measured, on networks the sensitivity was made on and on others.

Single layers: one weight held in one of the ways that the planner chooses from (no other is both smaller and less harmful),
all others as they are, moments matched. Plans: 20 with a random such form for each weight, the KL handed out unevenly, 5 as
the planner allocates, over three decades of KL; predicted by `SizeAccuracyCurve`, which measured a few plans of its own on
validation data. KL, in nats, is of test data, which neither the sensitivity nor the curve looks at. The pretrained ResNets
have learned all training images: half of the 1,000 test images are validation data here, the other half test data. Few samples
carry most of a KL, so that the same network's differs between the halves: how far, is told too, of every plan.

Each network runs in a process of its own, so that the peak of memory after its forecast is its own.
"""

import copy
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from bench import char_lstm, minilm
from bench.black_box import changed_by
from bench.kept import kept
from bench.minilm import rank_correlation
from bench.planner_vs_search import DOUBT
from bench.result import Clock, row
from cortado.methods.match_moments import MatchMoments
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.compare.divergence import divergence_for
from cortado.network.view import View
from cortado.network.weight import parameter_places
from cortado.parts.forms.form import Form
from cortado.planner.allocate.measured_plans import mean_divergences
from cortado.planner.allocate.plan import Plan
from cortado.planner.allocate.size_accuracy_curve import MEASURED_AT, SizeAccuracyCurve, planned, size_accuracy_curve
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.task.outputs.outputs import Outputs
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
SINGLES, RANDOM, ALLOCATED = 160, 20, 5
LEAST_NATS, MOST_NATS = 0.002, 1.5
"""Between which the plans lie, as the forecast has them."""
AT_ONCE = 5
"""Plans whose networks are in memory together."""
MATCH_SAMPLES, SINGLE_SAMPLES, PLAN_SAMPLES = 64, 128, 500
FACTOR = 1.5
RANK_BAR, PLANS_BAR = 0.90, 0.95


def halved(task: Task) -> Task:
    """Half of the test data to choose on, the other half to test: for networks that know the validation data."""
    half = len(task.test) // 2
    return replace(task, validation=task.test.pick(slice(0, half)), test=task.test.pick(slice(half, None)))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Task]]] = {
    "ResNet-20": lambda: (resnet_20(weights=True).eval(), halved(cifar10.task())),
    "char-LSTM": lambda: (char_lstm.char_lstm(), char_lstm.task()),
    "ResNet-56": lambda: (resnet_56(weights=True).eval(), halved(cifar10.task())),
    "MiniLM": lambda: (minilm.minilm(), minilm.task()),
}


def run() -> list[dict[str, Any]]:
    """All networks; each is kept when it is done."""
    return [one for name in NETWORKS for one in rows_of(name, piece(name))]


def piece(name: str) -> dict[str, Any]:
    """What was measured of a network."""
    settings = [
        CANDIDATE_RECIPES,
        *DOUBT,
        MEASURED_AT,
        SINGLES,
        RANDOM,
        ALLOCATED,
        MATCH_SAMPLES,
        SINGLE_SAMPLES,
        PLAN_SAMPLES,
    ]
    return kept(f"prediction/{name}", settings, partial(apart, name))


def apart(name: str) -> dict[str, Any]:
    """What is measured of a network, in a process of its own."""
    command = [sys.executable, "-m", "bench.prediction", name, str(torch.get_num_threads())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rows_of(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a network, from what was measured."""
    single, plans, cost = found["single"], found["plans"], found["forecast"]
    factors = sorted(off(one["predicted"], one["kl"]) for one in plans)
    within = 100 * sum(factor <= FACTOR for factor in factors) / len(factors)
    halves = sorted(off(one["kl_choice"], one["kl"]) for one in plans)
    own = max(off(one["predicted"], one["kl"]) for one in plans if one["kind"] == "allocated")
    spread = math.exp((sum(math.log(factor) ** 2 for factor in factors) / len(factors)) ** 0.5)
    ranks = ranked([(one["predicted KL"], one["kl"]) for one in single])
    rows = [
        row(f"{name}: rank correlation, single layers", ranks, "", RANK_BAR, "higher", candidates=single),
        row(
            f"{name}: rank correlation, plans", ranked([(one["predicted"], one["kl"]) for one in plans]), "",
            PLANS_BAR, "higher", plans=plans,
        ),
        row(f"{name}: plans predicted within a factor of {FACTOR:g}", within, "%", 100.0, "higher"),
        row(f"{name}: largest factor of the planner's own plans", own, "x", plans=ALLOCATED),
        row(f"{name}: largest factor", factors[-1], "x", FACTOR, median=factors[len(factors) // 2], deviation=spread),
        row(
            f"{name}: the same plans measured on validation data instead of predicted, within a factor of {FACTOR:g}",
            100 * sum(factor <= FACTOR for factor in halves) / len(halves), "%", largest=halves[-1],
        ),
        row(f"{name}: factor that the forecast says of itself", cost["spread"], "x", constant=cost["constant"]),
        row(f"{name}: forecast, minutes of one core", cost["processor_minutes"], "min", by_the_clock=cost["minutes"]),
        row(f"{name}: peak memory of the forecast", cost["peak_bytes"] / 1e6, "MB"),
    ]  # fmt: skip
    if "spearman" in found:
        rows.append(row(f"{name}: rank correlation on STS-B, plain", found["spearman"], "", 0.82, "higher", 0.8203))
    return rows


def ranked(pairs: list[tuple[float, float]]) -> float:
    """Rank correlation of the two."""
    first, second = torch.tensor(pairs, dtype=torch.float64).T
    return rank_correlation(first, second)


def off(predicted: float, measured: float) -> float:
    """The factor between the two, 1 or more."""
    return math.exp(abs(math.log(max(predicted, 1e-12) / max(measured, 1e-12))))


def measured(original: nn.Module, task: Task) -> dict[str, Any]:
    """Everything of one network.  The test data are looked at last, once for each change and plan."""
    clock, start = Clock(), time.process_time()
    found = size_accuracy_curve(original, original, task)
    cost = {
        "minutes": clock.minutes, "processor_minutes": (time.process_time() - start) / 60,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "spread": found.spread, "constant": found.constant,
    }  # fmt: skip
    nats = divergence_for(original, task)
    single = singles(found, original, task, nats)
    plans = [*allocated(found), *mixes(found, task)]
    test, validation, describe = task.test.first(PLAN_SAMPLES), task.validation.first(PLAN_SAMPLES), []
    for some in (plans[at : at + AT_ONCE] for at in range(0, len(plans), AT_ONCE)):
        made = [planned(plan, original, original, task) for _, plan in some]
        pairs = zip(*(mean_divergences(original, made, data, nats) for data in (test, validation)), strict=True)
        for (kind, plan), (kl, other) in zip(some, pairs, strict=True):
            describe.append(
                {
                    "kind": kind,
                    "predicted KL": plan.predicted_kl,
                    "predicted": found.kl(plan.predicted_kl),
                    "kl": kl,
                    "kl_choice": other,
                }
            )
    return {"single": single, "plans": describe, "forecast": cost}


def singles(found: SizeAccuracyCurve, original: nn.Module, task: Task, nats: Outputs) -> list[dict[str, Any]]:
    """Damage and measured KL of a sample of changes, as many of each weight."""
    generator = task.generator(71)
    each = -(-SINGLES // len(found.choices))
    drawn: dict[str, dict[str, float]] = {}
    for one in found.choices:
        some = [candidate for candidate in one.candidates if candidate.way]
        for number in torch.randperm(len(some), generator=generator)[:each].tolist():
            drawn.setdefault(some[number].way, {})[one.path] = some[number].predicted_kl
    describe, data = [], task.test.first(SINGLE_SAMPLES)
    for way, predicted_kls in drawn.items():
        forms = {one.path: one.form for one in changed_by(original, original, task, way)}
        made = [alone(path, forms[path], original, task) for path in predicted_kls]
        for path, kl in zip(predicted_kls, mean_divergences(original, made, data, nats), strict=True):
            describe.append({"path": path, "way": way, "predicted KL": predicted_kls[path], "kl": kl})
    return describe


def alone(path: str, form: Form, original: nn.Module, task: Task) -> nn.Module:
    """The original network with one weight held in another form, matched."""
    made = copy.deepcopy(original)
    next(weight for weight in parameter_places(made) if weight.path == path).set_form(form)
    MatchMoments(images=MATCH_SAMPLES).apply(View(made, original, task.example, reference=original), task)
    return made


def allocated(found: SizeAccuracyCurve) -> list[tuple[str, Plan]]:
    """The planner's own mixes, their KL in even ratios."""
    plans = []
    for number in range(ALLOCATED):
        target = LEAST_NATS * (MOST_NATS / LEAST_NATS) ** ((number + 0.5) / ALLOCATED)
        low, high = map(math.log, found.sizes)
        for _ in range(25):
            middle = (low + high) / 2
            plan = found.plan(math.exp(middle))
            small = plan is None or found.kl(plan.predicted_kl) > target
            low, high = (middle, high) if small else (low, middle)
        plan = found.plan(math.exp(high))
        assert plan is not None
        plans.append(("allocated", plan))
    return plans


def mixes(found: SizeAccuracyCurve, task: Task) -> list[tuple[str, Plan]]:
    """Mixes at random: predicted KL handed out to the weights unevenly, a way near each weight's part by lot."""
    generator, plans = task.generator(73), []
    for number in range(RANDOM):
        target = LEAST_NATS * (MOST_NATS / LEAST_NATS) ** (number / (RANDOM - 1))
        parts = torch.randn(len(found.choices), generator=generator).exp()
        parts = (parts / parts.sum() * target / found.constant).log().tolist()
        chosen = {}
        for part, one in zip(parts, found.choices, strict=True):
            candidate_recipes = [candidate for candidate in one.candidates if candidate.way]
            near = sorted(
                candidate_recipes or one.candidates,
                key=lambda other, part=part: abs(math.log(max(other.predicted_kl, 1e-12)) - part),
            )[:4]
            chosen[one.path] = near[int(torch.randint(len(near), (), generator=generator))]
        plans.append(("mixed", Plan(chosen)))
    return plans


def main(name: str, threads: int) -> dict[str, Any]:
    """One network, with a line of text that `apart` reads."""
    torch.set_num_threads(threads)
    original, task = NETWORKS[name]()
    found = measured(original, task)
    if name == "MiniLM":
        found["spearman"] = minilm.spearman(original, "test")
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], int(sys.argv[2]))) + "\n")
