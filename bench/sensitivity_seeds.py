"""sensitivity_seeds: how much of a plan is the luck of its seed.  Signs of the curvature and positions of activations are drawn;
ResNet-20, three seeds: the KL of the mixes that each seed's prices allocate, at the bytes of uniform 4, 3 and 2.5 bits, and how
alike the prices rank all changes.  Weights only, nothing trained; KL in nats, of the test images, once for each mix.
"""

import copy
import dataclasses
import statistics
from typing import Any

import torch

from bench.allocation import LEVELS, evenly, size
from bench.kept import kept
from bench.minilm import rank_correlation
from bench.planner_vs_search import DOUBT
from bench.result import row
from cortado.nets.resnet import resnet_20
from cortado.network.compare.divergence import divergence_for
from cortado.network.view import View
from cortado.planner.allocate.measured_plans import mean_divergences
from cortado.planner.allocate.plan import plan_for
from cortado.planner.allocate.size_accuracy_curve import planned
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.sensitivity.candidates import Choices, every_candidate, undominated
from cortado.planner.sensitivity.sensitivity import sensitivities
from cortado.tasks import cifar10

SEEDS = [0, 1, 2]


def measured(seed: int) -> dict[str, Any]:
    """Damages of all changes, and KL of a mix for each size."""
    original, task = resnet_20(weights=True).eval(), dataclasses.replace(cifar10.task(), seed=seed)
    view = View(copy.deepcopy(original), original, task.example)
    weights = [weight for weight in view.weights() if len(weight.shape) > 1]
    every = every_candidate(view, task, sensitivities(view, weights, task))
    choices = [Choices(path, some[0].size_bytes, undominated(some)) for path, some in every.items()]
    plans = []
    for levels in LEVELS:
        plan = plan_for(choices, size(evenly(original, list(every), levels), original, list(every)))
        assert plan is not None
        plans.append(plan)
    made = [planned(plan, original, original, task) for plan in plans]
    return {
        "predicted KLs": [one.predicted_kl for some in every.values() for one in some if one.way],
        "kl": mean_divergences(original, made, task.test, divergence_for(original, task)),
    }


def run() -> list[dict[str, Any]]:
    """One row a size, and the ranks."""
    found = [
        kept(f"sensitivity_seeds/{seed}", [CANDIDATE_RECIPES, *DOUBT], lambda seed=seed: measured(seed))
        for seed in SEEDS
    ]
    rows = []
    for number, bits in enumerate(LEVELS.values()):
        nats = [one["kl"][number] for one in found]
        what = f"at the bytes of {bits}: largest over smallest KL of three seeds"
        rows.append(row(what, max(nats) / min(nats), "x", nats=nats, mean=statistics.mean(nats)))
    predicted_kls = [torch.tensor(one["predicted KLs"], dtype=torch.float64) for one in found]
    ranks = [rank_correlation(predicted_kls[a], predicted_kls[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    return [
        *rows,
        row(
            "least rank correlation of two seeds' predicted KLs",
            min(ranks),
            "",
            None,
            "higher",
            changes=len(predicted_kls[0]),
        ),
    ]
