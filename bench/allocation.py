"""allocation: bytes given out by the planner against as many for every layer alike; weights only, nothing trained.

Uniform rounding has 15, 7 and 5 levels a channel (4, 3 and about 2.5 bits, spans of least squared error). Both sides
have their moments matched to the original network's. KL and accuracy are of the 1,000 test images; calibration images
are all that the planner looks at.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.after import after
from bench.int8_cifar import divergence
from bench.kept import kept
from bench.result import Clock, row
from cortado.file.accounting import layer_rows
from cortado.methods.match_moments import MatchMoments
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.view import View
from cortado.network.weight import parameter_places
from cortado.parts.forms.quantized import Quantized
from cortado.planner.allocate.plan import plan_for
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.sensitivity.candidates import candidates_of
from cortado.planner.sensitivity.sensitivity import sensitivities
from cortado.running.call import call
from cortado.task.task import Data, Task
from cortado.tasks import cifar10

SEEDS = [0]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-20": lambda: resnet_20(weights=True),
    "ResNet-56": lambda: resnet_56(weights=True),
}
LEVELS = {15: "4 bits", 7: "3 bits", 5: "2.5 bits"}
BAR = 0.45
LEAST = {"ResNet-20": 90.3}
"""Accuracy at the bytes of 3 bits, in %; of any other network a point under the original's."""


def run() -> list[dict[str, Any]]:
    """Both networks; each is kept when it is done."""
    settings = [CANDIDATE_RECIPES, list(LEVELS)]
    pieces = {name: kept(f"allocation/{name}", settings, partial(measured, name)) for name in NETWORKS}
    return [one for name, piece in pieces.items() for one in rows_of(name, piece)]


def rows_of(name: str, piece: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a network, from what was measured."""
    rows, matmul = [row(f"{name}: plain accuracy", piece["original"], "%", None, "higher")], 1.0
    for levels, bits in LEVELS.items():
        facts = piece[str(levels)]
        what, ratio = f"{name}, at the bytes of {bits}", facts["kl"] / facts["kl_uniform"]
        least = LEAST.get(name, piece["original"] - 1.0) if levels == 7 else None
        rows.append(row(f"{what}: KL of the mix over uniform's", ratio, "x", **facts))
        rows.append(row(f"{what}: accuracy of the mix", facts["score"], "%", least, "higher"))
        matmul *= ratio
    mean = matmul ** (1 / len(LEVELS))
    rows.append(row(f"{name}: KL of the mix over uniform's, geometric mean", mean, "x", BAR, minutes=piece["minutes"]))
    return rows


def measured(name: str) -> dict[str, Any]:
    """Everything of one network, by levels.  The test images are looked at once for each mix."""
    clock, original, task = Clock(), NETWORKS[name]().eval(), cifar10.task()
    wanted = answers(original, task.test)
    found: dict[str, Any] = {"original": accuracy(wanted, task)}
    view = View(copy.deepcopy(original), original, task.example)
    weights = [weight for weight in view.weights() if len(weight.shape) > 1]
    rated = sensitivities(view, weights, task)
    choices = candidates_of(view, task, rated)
    found["minutes"] = clock.minutes
    for levels in LEVELS:
        uniform = evenly(original, list(rated), levels)
        room = size(uniform, original, rated)
        plan = plan_for(choices, room)
        assert plan is not None
        mixed = after(original, task, plan.recipe())
        (even_kl, even_score), (kl, score) = (judged(one, original, task, wanted) for one in (uniform, mixed))
        found[str(levels)] = {
            "bytes": size(mixed, original, rated), "bytes_uniform": room, "predicted": plan.predicted_kl,
            "kl": kl, "kl_uniform": even_kl, "score": score, "score_uniform": even_score,
        }  # fmt: skip
    return found


def evenly(original: nn.Module, paths: list[str], levels: int) -> nn.Module:
    """Every weight on so many levels around zero, each output channel with the span of least squared error."""
    made, half = copy.deepcopy(original), levels // 2
    for weight in parameter_places(made):
        if weight.path in paths:
            rows = weight.dense().flatten(1)
            reach = rows.abs().amax(1, keepdim=True).clamp(min=1e-12)
            scales = reach * torch.linspace(0.2, 1.0, 41) / half
            codes = (rows[:, None] / scales[..., None]).round().clamp(-half, half)
            best = (codes * scales[..., None] - rows[:, None]).square().sum(-1).argmin(1)
            each = torch.arange(len(rows))
            weight.set_form(Quantized(codes[each, best].int().view(weight.shape), scales[each, best], None, "channel"))
    return made


def size(network: nn.Module, original: nn.Module, paths: Any) -> int:
    """Bytes of the records of these weights in the file."""
    return sum(one.size_bytes for one in layer_rows(network, original) if one.path in paths)


def judged(network: nn.Module, original: nn.Module, task: Task, wanted: Tensor) -> tuple[float, float]:
    """KL from the original answers in nats, and accuracy in %, once moments are matched."""
    MatchMoments().apply(View(network, original, task.example, reference=original), task)
    found = answers(network, task.test)
    return float(divergence(wanted, found).mean()), accuracy(found, task)


def accuracy(found: Tensor, task: Task) -> float:
    return 100 * float((found.argmax(1) == task.test.targets).double().mean())


def answers(network: nn.Module, data: Data) -> Tensor:
    with torch.no_grad():
        return torch.cat([call(network.eval(), inputs) for inputs, _ in data.batches(100)])
