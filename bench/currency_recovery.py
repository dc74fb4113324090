"""currency_recovery: whether the nats that a mix is predicted to cost still tell, once it has been trained.  ResNet-20.

At the bytes of uniform 4, 3 and 2.5 bits: the planner's mix, and four that are as small but allocated by damages that were
each multiplied by a random factor (log-normal, a deviation of 1.5 in its logarithm).  All have their moments matched, are
measured, tuned as a goal recovers its trials (the plain network as teacher) over a fifth of the training images, and measured
again.  KL in nats and accuracy are of the 1,000 verdict images, once before and once after.
"""

import copy
from dataclasses import replace
from typing import Any

import torch

from bench.allocation import LEVELS, evenly, size
from bench.kept import kept
from bench.minilm import rank_correlation
from bench.planner_vs_search import DOUBT
from bench.result import row
from cortado.measure import mean_score
from cortado.methods.tune import Tune
from cortado.nets.resnet import resnet_20
from cortado.network.divergence import nats_for
from cortado.network.view import View
from cortado.planner.candidates import Choices, candidates_of, undominated
from cortado.planner.currency import prices
from cortado.planner.forecast import mean_divergences, planned
from cortado.planner.plan import Plan, plan_for
from cortado.planner.proposals import RECOVERY
from cortado.planner.ways import WAYS
from cortado.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
MISLED, DEVIATION, EPOCHS = 4, 1.5, 0.2


def run() -> list[dict[str, Any]]:
    """A row a size, and the ranks over all sizes."""
    sizes = list(LEVELS.values())
    mixes = kept("currency_recovery", [WAYS, *DOUBT, sizes, MISLED, DEVIATION, EPOCHS, RECOVERY], measured)["mixes"]
    rows = [one_size(bits, [one for one in mixes if one["size"] == bits]) for bits in sizes]
    return [
        *rows,
        ranks("predicted damage with KL before recovery", mixes, "damage", "kl"),
        ranks("predicted damage with KL after recovery", mixes, "damage", "kl_after"),
        ranks("KL before with KL after recovery", mixes, "kl", "kl_after"),
    ]


def one_size(bits: str, mixes: list[dict[str, Any]]) -> dict[str, Any]:
    """The planner's mix beside the best of those that are as small."""
    own, others = mixes[0], mixes[1:]
    best = {key: min(one[key] for one in others) for key in ("kl", "kl_after")}
    what = f"at the bytes of {bits}: KL after recovery, the planner's mix over the best of the misled ones"
    return row(what, own["kl_after"] / best["kl_after"], "x", before=own["kl"] / best["kl"], mixes=mixes)


def ranks(what: str, mixes: list[dict[str, Any]], first: str, second: str) -> dict[str, Any]:
    """Rank correlation over all mixes."""
    pair = [torch.tensor([one[key] for one in mixes], dtype=torch.float64) for key in (first, second)]
    return row(f"rank correlation of {what}", rank_correlation(*pair), "", None, "higher", mixes=len(mixes))


def measured() -> dict[str, Any]:
    """Every mix, before and after it was trained."""
    plain, task = resnet_20(weights=True).eval(), cifar10.task()
    view = View(copy.deepcopy(plain), plain, task.example)
    weights = [weight for weight in view.weights() if len(weight.shape) > 1]
    priced = prices(view, weights, task)
    choices, generator = candidates_of(view, task, priced), task.generator(83)
    found = []
    for levels, bits in LEVELS.items():
        room = size(evenly(plain, list(priced), levels), plain, list(priced))
        for number in range(1 + MISLED):
            factors = torch.randn(1000, generator=generator).mul(DEVIATION if number else 0.0).exp().tolist()
            plan = misled(choices, factors, room)
            made = planned(plan, plain, plain, task)
            before = told(made, plain, task)
            Tune(**RECOVERY, epochs=EPOCHS).apply(View(made, plain, task.example), task)
            after = {f"{key}_after": value for key, value in told(made, plain, task).items()}
            found.append({"size": bits, "bytes": plan.size_bytes, "damage": plan.damage, **before, **after})
            print(found[-1], flush=True)
    return {"mixes": found}


def told(network: torch.nn.Module, plain: torch.nn.Module, task: Task) -> dict[str, float]:
    """KL and accuracy of the verdict images."""
    (kl,) = mean_divergences(plain, [network], task.verdict, nats_for(plain, task))
    return {"kl": kl, "score": mean_score(network, task.verdict, task.score)}


def misled(choices: tuple[Choices, ...], factors: list[float], room: float) -> Plan:
    """The plan for so many bytes by damages that are multiplied by the factors; with the true damages."""
    at, wrong, true = iter(factors), [], {}
    for one in choices:
        scaled = []
        for candidate in one.candidates:
            other = replace(candidate, damage=candidate.damage * next(at))
            true[one.path, other] = candidate
            scaled.append(other)
        wrong.append(Choices(one.path, one.plain_bytes, undominated(scaled)))
    plan = plan_for(tuple(wrong), room)
    assert plan is not None
    return Plan({path: true[path, candidate] for path, candidate in plan.chosen.items()})
