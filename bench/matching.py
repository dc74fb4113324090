"""matching: what giving channels their moments back is worth, on networks with batch norms and without.

All weights are held in one way, nothing is trained.  KL in nats, of 500 test samples, each network looked at once: nothing
matched; all that can be matched, whether it helps or not; and as `match_moments` decides, which leaves biases and scales where
the answers of its 256 calibration samples come no nearer.  MiniLM wants its wheel (bench/minilm.py).
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from bench import char_lstm, int8_imagenet, minilm
from bench.kept import kept
from bench.result import row
from cortado.engine.recipe import read_recipe
from cortado.methods.match_moments import MatchMoments, matmul_hooks, norm_hooks, run_with_hooks, shared_layers
from cortado.nets.resnet import resnet_20
from cortado.network.compare.divergence import divergence_for
from cortado.network.view import View
from cortado.planner.allocate.measured_plans import mean_divergences
from cortado.task.task import Task
from cortado.tasks import cifar10, imagenet

SEEDS = [0]
SAMPLES = 500
CANDIDATE_RECIPES = {
    "4 bits": "quantize/weights bits=4",
    "half pruned, 3 bits": "prune/weights keep=0.5 | share/kmeans bits=3",
}


def mobilenet() -> tuple[nn.Module, Task]:
    """An ImageNet network whose batch norms are folded away."""
    make, picture = int8_imagenet.NETWORKS["MobileNetV1, 0.25, 128"]
    return make().eval(), imagenet.task(picture=picture)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Task]]] = {
    "ResNet-20": lambda: (resnet_20(weights=True).eval(), cifar10.task()),
    "MobileNetV1, 0.25, 128": mobilenet,
    "char-LSTM": lambda: (char_lstm.char_lstm(), char_lstm.task()),
    "MiniLM": lambda: (minilm.minilm(), minilm.task()),
}


def run() -> list[dict[str, Any]]:
    """Each network is kept when it is done."""
    return [
        one
        for name in NETWORKS
        for one in rows_of(name, kept(f"matching/{name}", CANDIDATE_RECIPES, partial(measured, name)))
    ]


def rows_of(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Two rows a way."""
    rows = []
    for what in CANDIDATE_RECIPES:
        bare, forced, decided = found[what]
        rows.append(
            row(f"{name}, {what}: KL with all matched over none", forced / bare, "x", None, bare=bare, all=forced)
        )
        rows.append(row(f"{name}, {what}: KL as match decides over none", decided / bare, "x", 1.0, decided=decided))
    return rows


def measured(name: str) -> dict[str, Any]:
    """KL of each way: nothing, all, and as it is decided."""
    original, task = NETWORKS[name]()
    found = {}
    for what, line in CANDIDATE_RECIPES.items():
        bare = copy.deepcopy(original)
        for stage in read_recipe(line).stages:
            stage.apply(View(bare, original, task.example), task)
        forced, decided = copy.deepcopy(bare), copy.deepcopy(bare)
        all_matched(View(forced, original, task.example), task)
        MatchMoments().apply(View(decided, original, task.example), task)
        found[what] = mean_divergences(
            original, [bare, forced, decided], task.test.first(SAMPLES), divergence_for(original, task)
        )
    return found


def all_matched(view: View, task: Task) -> None:
    """As `match_moments`, whatever it does to the answers."""
    match = MatchMoments()
    wanted = match.wanted(view, task).moments
    norms, matmul_layers = match.layers(view, wanted)
    hooks = [*norm_hooks(norms, wanted), *matmul_hooks(matmul_layers, wanted, shared_layers(view))]
    run_with_hooks(view.network, match.inputs(view, task), hooks, task.outputs)
