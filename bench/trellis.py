"""trellis: dependent quantization against one even grid, whole files at an equal distance from the original network.

Every file is written, read back and compared. The distance is the KL divergence of the outputs: predicted from the curvature
of the calibration pictures, and measured on validation pictures, moments matched. The even grids are quantize/trellis with
one state, which weighs bits and curvature alike, and quantize/weights with one scale a tensor or a channel. How large an
even grid is at the distance of a trellis is read from the line through the logarithms of distance and bytes; for each
distance the smallest counts. No label and no test picture is used.

    python -m bench.trellis NETWORK     the points of one network, kept under bench/pieces
    python -m bench trellis             the table and the result
"""

import sys
from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.int8_cifar import divergence
from bench.kept import kept
from bench.networks import trained
from bench.result import PIECES, Clock, row
from cortado.file.artifact import decode, encode
from cortado.importance.curvature import Curvature
from cortado.methods.match_moments import MatchMoments
from cortado.methods.quantize.trellis import QuantizeTrellis, shrunk
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.view import View, working_copy
from cortado.network.weight import parameter_places
from cortado.parts.forms.same import same_state
from cortado.running.call import call
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
PICTURES = 1_000
BAR = 0.95
STEPS = (0.15, 0.2, 0.26, 0.33, 0.41, 0.5)
"""Distances of levels on a trellis; those of an even grid are 1.7 times as wide, for about as many bits."""
WIDER = 1.7
STATES = (8, 32)
SETTINGS = [STEPS, WIDER, STATES, PICTURES, QuantizeTrellis().price, QuantizeTrellis().rounds]
Made = Callable[[View, list[Tensor]], None]
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Task]]] = {
    "ResNet-20": lambda: (resnet_20(weights=True).eval(), cifar10.task()),
    "ResNet-56": lambda: (resnet_56(weights=True).eval(), cifar10.task()),
    "LeNet-5": lambda: trained("LeNet-5", 0),
}


def run() -> list[dict[str, Any]]:
    """All networks; the points of each are kept when they are done."""
    pieces = {name: kept(f"trellis_{name.lower()}", SETTINGS, partial(points, name), PIECES) for name in NETWORKS}
    return [one for name, piece in pieces.items() for one in rows_of(name, piece)]


def families() -> dict[str, list[Made]]:
    """Each way to round, at several sizes."""
    found = {f"{states} states": [coded(states, step) for step in STEPS] for states in STATES}
    found["one even grid"] = [coded(1, WIDER * step) for step in STEPS]
    for per in ("tensor", "channel"):
        each = [QuantizeWeights(bits=bits, per=per) for bits in (6, 5, 4, 3)]
        found[f"quantize/weights per={per}"] = [partial(rounded, one) for one in each]
    return found


def coded(states: int, step: float) -> Made:
    """A trellis, or one even grid, of this step."""

    def make(view: View, importances: list[Tensor]) -> None:
        method = QuantizeTrellis(step=step, states=states)
        method.code(method.chosen(view), importances, view.progress)

    return make


def rounded(method: QuantizeWeights, view: View, importances: list[Tensor]) -> None:
    for weight in view.weights():
        weight.set_form(method.on_grid(weight))


def points(name: str) -> dict[str, Any]:
    """Bytes, predicted and measured KL, seconds of the search, for every family and size."""
    original, task = NETWORKS[name]()
    view = View(working_copy(original), original, task.example)
    clock = Clock()
    curvature = Curvature().diagonal(view.weights(), view, task)
    found: dict[str, Any] = {"curvature_seconds": 60 * clock.minutes}
    wanted = answers(original, task)
    for family, some in families().items():
        found[family] = [point(original, task, make, curvature, wanted) for make in some]
        print(name, family, [[round(one, 5) for one in each.values()] for each in found[family]], flush=True)
    return found


def point(original: nn.Module, task: Task, make: Made, curvature: list[Tensor], wanted: Tensor) -> dict[str, float]:
    """One network, its file read back."""
    view, clock = View(working_copy(original), original, task.example, reference=original), Clock()
    make(view, shrunk(curvature))
    seconds = 60 * clock.minutes
    before = {weight.path: weight for weight in parameter_places(original)}
    pairs = [(weight.dense(), before[weight.path].dense()) for weight in view.weights()]
    predicted = sum(float(0.5 * (h * (w - v).square()).sum()) for (w, v), h in zip(pairs, curvature, strict=True))
    MatchMoments().apply(view, task)
    body = encode(view.network, original)
    small = decode(body, original).eval()
    if not same_state(small, view.network):
        raise AssertionError("trellis: a file did not come back")
    kl = float(divergence(wanted, answers(small, task)).mean())
    return {"bytes": len(body), "predicted": predicted, "measured": kl, "seconds": seconds}


def answers(network: nn.Module, task: Task) -> Tensor:
    """The outputs on the first validation pictures."""
    data = task.validation.first(PICTURES)
    with torch.no_grad():
        return torch.cat([call(network.eval(), inputs) for inputs, _ in data.batches(100)])


def rows_of(name: str, piece: dict[str, Any]) -> list[dict[str, Any]]:
    """Size of each trellis over the smallest even grid's, and where the even grids stand."""
    rivals = [family for family in families() if "states" not in family]
    rows = []
    for family in families():
        if family in rivals:
            continue
        for kind, says in (("predicted", "predicted KL"), ("measured", "measured KL")):
            ratios = [one["bytes"] / smallest(piece, rivals, kind, one[kind]) for one in piece[family]]
            what = f"{name}, {family}: file over the best even grid's at equal {says}, mean of {len(ratios)} sizes"
            bar = BAR if family == "8 states" else None
            rows.append(row(what, mean(ratios), "x", bar, values=ratios))
    for family in rivals[1:]:
        ratios = [one["bytes"] / line(piece["8 states"], "predicted", one["predicted"]) for one in piece[family]]
        rows.append(row(f"{name}, {family}: file over that of 8 states at equal predicted KL", mean(ratios), "x"))
    sizes = [one["bytes"] for one in piece["8 states"]]
    rows.append(row(f"{name}, 8 states: largest file", max(sizes), "B", points=piece["8 states"]))
    rows.append(row(f"{name}, 8 states: smallest file", min(sizes), "B"))
    rows.append(row(f"{name}, 8 states: longest search", max(one["seconds"] for one in piece["8 states"]), "s"))
    rows.append(row(f"{name}: curvature of all weights", piece["curvature_seconds"], "s"))
    return rows


def smallest(piece: dict[str, Any], families: list[str], kind: str, distance: float) -> float:
    """The bytes of the smallest even grid at this distance."""
    return min(line(piece[family], kind, distance) for family in families)


def line(some: list[dict[str, float]], kind: str, distance: float) -> float:
    """Bytes at a distance, on the curve of second degree through the points' logarithms."""
    distances, sizes = (np.log([one[key] for one in some]) for key in (kind, "bytes"))
    return float(np.exp(np.polyval(np.polyfit(distances, sizes, 2), np.log(distance))))


if __name__ == "__main__":
    torch.set_num_threads(1)
    kept(f"trellis_{sys.argv[1].lower()}", SETTINGS, partial(points, sys.argv[1]), PIECES)
