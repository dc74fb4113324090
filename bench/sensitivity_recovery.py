"""sensitivity_recovery: whether the nats that a mix is predicted to cost still tell, once it has been trained.  ResNet-20.

At the bytes of uniform 4, 3 and 2.5 bits: the planner's mix, and four that are as small but allocated by predicted KLs that were
each multiplied by a random factor (log-normal, a deviation of 1.5 in its logarithm).  All have their moments matched, are
measured, fine-tuned as a goal recovers its trials (the original network as teacher) on a fifth of the training images, measured
again.  KL in nats and accuracy are of the 1,000 test images, once before and once after.
"""

import copy
from dataclasses import asdict, replace
from typing import Any

import torch

from bench.allocation import LEVELS, evenly, size
from bench.kept import kept
from bench.minilm import rank_correlation
from bench.planner_vs_search import DOUBT
from bench.result import row
from cortado.methods.finetune import Finetune
from cortado.nets.resnet import resnet_20
from cortado.network.compare.divergence import divergence_for
from cortado.network.view import View
from cortado.planner.allocate.measured_plans import mean_divergences
from cortado.planner.allocate.plan import Plan, plan_for
from cortado.planner.allocate.size_accuracy_curve import planned
from cortado.planner.search.proposals import RECOVERY
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.sensitivity.candidates import Choices, candidates_of, undominated
from cortado.planner.sensitivity.sensitivity import sensitivities
from cortado.task.measure import mean_score
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
MISLED, DEVIATION, EPOCHS = 4, 1.5, 0.2


def run() -> list[dict[str, Any]]:
    """A row a size, and the ranks over all sizes."""
    sizes = list(LEVELS.values())
    mixes = kept(
        "sensitivity_recovery",
        [CANDIDATE_RECIPES, *DOUBT, sizes, MISLED, DEVIATION, EPOCHS, asdict(RECOVERY)],
        measured,
    )["mixes"]
    rows = [one_size(bits, [one for one in mixes if one["size"] == bits]) for bits in sizes]
    return [
        *rows,
        ranks("predicted predicted KL with KL before recovery", mixes, "predicted KL", "kl"),
        ranks("predicted predicted KL with KL after recovery", mixes, "predicted KL", "kl_after"),
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
    original, task = resnet_20(weights=True).eval(), cifar10.task()
    view = View(copy.deepcopy(original), original, task.example)
    weights = [weight for weight in view.weights() if len(weight.shape) > 1]
    rated = sensitivities(view, weights, task)
    choices, generator = candidates_of(view, task, rated), task.generator(83)
    found = []
    for levels, bits in LEVELS.items():
        room = size(evenly(original, list(rated), levels), original, list(rated))
        for number in range(1 + MISLED):
            factors = torch.randn(1000, generator=generator).mul(DEVIATION if number else 0.0).exp().tolist()
            plan = misled(choices, factors, room)
            made = planned(plan, original, original, task)
            before = describe(made, original, task)
            Finetune(replace(RECOVERY, epochs=EPOCHS), teacher=0.5).apply(View(made, original, task.example), task)
            after = {f"{key}_after": value for key, value in describe(made, original, task).items()}
            found.append({"size": bits, "bytes": plan.size_bytes, "predicted KL": plan.predicted_kl, **before, **after})
            print(found[-1], flush=True)
    return {"mixes": found}


def describe(network: torch.nn.Module, original: torch.nn.Module, task: Task) -> dict[str, float]:
    """KL and accuracy of the test images."""
    (kl,) = mean_divergences(original, [network], task.test, divergence_for(original, task))
    return {"kl": kl, "score": mean_score(network, task.test, task.metric)}


def misled(choices: tuple[Choices, ...], factors: list[float], room: float) -> Plan:
    """The plan for so many bytes by predicted KLs that are multiplied by the factors; with the true predicted KLs."""
    at, wrong, true = iter(factors), [], {}
    for one in choices:
        scaled = []
        for candidate in one.candidates:
            other = replace(candidate, predicted_kl=candidate.predicted_kl * next(at))
            true[one.path, other] = candidate
            scaled.append(other)
        wrong.append(Choices(one.path, one.original_bytes, undominated(scaled)))
    plan = plan_for(tuple(wrong), room)
    assert plan is not None
    return Plan({path: true[path, candidate] for path, candidate in plan.chosen.items()})
