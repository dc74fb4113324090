"""trellis: dependent quantization against one even grid, whole files at an equal distance from the original network.

Every file is written with the quick preset of the coder, read back and compared. The distance is the KL divergence of the
outputs: predicted from the curvature of the calibration pictures, and measured on validation pictures, moments matched. The
even grids are quantize/trellis with one state, which weighs bits and curvature alike, and quantize/weights with one scale a
tensor or a channel. How large an even grid is at the distance of a trellis is read from the curve through the logarithms of
distance and bytes; for each distance the smallest counts. No label and no test picture is used.

    python -m bench.trellis NETWORK     the points of one network, kept under bench/pieces
    python -m bench trellis             the table and the result
"""

import math
import re
import sys
from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.int8_cifar import divergence
from bench.kept import kept
from bench.networks import trained
from bench.result import CACHE, PIECES, Clock, row
from cortado.file.artifact import decode, encode
from cortado.file.plane import QUICK
from cortado.importance.curvature import Curvature
from cortado.methods.match_moments import MatchMoments
from cortado.methods.quantize.coded_plane import CodedPlane, find_codes
from cortado.methods.quantize.trellis import QuantizeTrellis, drawn_to_mean
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.network.view import View, working_copy
from cortado.network.weight import parameter_places
from cortado.parts.forms.same import same_state
from cortado.parts.forms.states import LAWS
from cortado.progress import quiet
from cortado.running.call import call
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
PICTURES = 1_000
BAR = 0.95
STEPS = (0.32, 0.42, 0.56, 0.74, 1.0)
"""Steps on a trellis; those of an even grid are narrower, for about as many bits."""
NARROWER = 0.85
EVEN = "one even grid"
FEWER = ("ResNet-56",)
"""Every second size, and only the best even grid: a point takes minutes."""
SETTINGS = [STEPS, NARROWER, PICTURES, QuantizeTrellis().bit_cost, QuantizeTrellis().rounds]
Made = Callable[[View, list[Tensor]], None]
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Task]]] = {
    "ResNet-20": lambda: (resnet_20(weights=True).eval(), cifar10.task()),
    "ResNet-56": lambda: (resnet_56(weights=True).eval(), cifar10.task()),
    "LeNet-5": lambda: trained("LeNet-5", 0),
}


def run() -> list[dict[str, Any]]:
    """All networks."""
    return [*normal_rows(), *(one for name in NETWORKS for one in rows_of(name, piece(name)))]


def normal_rows() -> list[dict[str, Any]]:
    """How close each number of states comes to the bound for normal values, at about 3 bits."""
    values = torch.randn(128, 1024, generator=torch.Generator().manual_seed(0))
    rows = []
    for states in (1, *LAWS):
        plane = CodedPlane(values, torch.ones_like(values), torch.zeros(values.shape, dtype=torch.int64), "tensor")
        plane.set_scale(0.5 if states == 1 else 0.3)
        find_codes([plane], LAWS.get(states), 0.09 if states == 1 else 0.36, 3, quiet())
        form = plane.form()
        error = float((form.dense().detach() - values).square().mean() / values.square().mean())
        codes = form.codes if states == 1 else form.codes()
        bits = entropy(codes, torch.zeros_like(codes) if states == 1 else form.grids())
        lost = 10 * math.log10(error) + 20 * math.log10(2) * bits
        rows.append(row(f"normal values, {states} states: error over the least at {bits:.2f} bits", lost, "dB"))
    return rows


def entropy(codes: Tensor, grids: Tensor) -> float:
    """Bits of a code, by counts of the codes on each grid."""
    bits = 0.0
    for grid in (0, 1):
        counts = torch.unique(codes[grids == grid], return_counts=True)[1].double()
        bits -= float((counts * (counts / counts.sum()).log2()).sum())
    return bits / codes.numel()


def piece(name: str) -> dict[str, list[dict[str, float]]]:
    """The points of one network, family by family; each family is kept when it is done."""
    judge: list[Judge] = []

    def made(family: str) -> dict[str, Any]:
        judge[:] = judge or [Judge(name)]
        return {"points": [judge[0].point(make) for make in families(name)[family]]}

    stem = f"trellis_{name.lower()}"
    return {
        one: kept(f"{stem}_{file_name(one)}", SETTINGS, partial(made, one), PIECES)["points"] for one in families(name)
    }


def file_name(family: str) -> str:
    return re.sub("[^a-z0-9]+", "_", family)


def families(name: str) -> dict[str, list[Made]]:
    """Each way to round one network, at several sizes."""
    steps = STEPS[::2] if name in FEWER else STEPS
    found = {"8 states": [coded(8, step) for step in steps], EVEN: [coded(1, NARROWER * step) for step in steps]}
    if name in FEWER:
        return found
    found["32 states"] = [coded(32, step) for step in steps]
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


class Judge:
    """One original network, with the curvature of its weights and its outputs on validation pictures."""

    def __init__(self, name: str) -> None:
        self.original, self.task = NETWORKS[name]()
        view = View(working_copy(self.original), self.original, self.task.example)
        path = CACHE / f"trellis_{name.lower()}_curvature.safetensors"
        if not path.exists():
            found = Curvature().diagonal(view.weights(), view, self.task)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({weight.path: one for weight, one in zip(view.weights(), found, strict=True)}, path)
        stored = load_file(path)
        self.curvature = [stored[weight.path] for weight in view.weights()]
        self.wanted = answers(self.original, self.task)

    def point(self, make: Made) -> dict[str, float]:
        """Bytes, predicted and measured KL, and seconds of the search; the file is read back."""
        original, task = self.original, self.task
        view, clock = View(working_copy(original), original, task.example, reference=original), Clock()
        make(view, drawn_to_mean(self.curvature))
        seconds = 60 * clock.minutes
        before = {weight.path: weight for weight in parameter_places(original)}
        pairs = [
            (weight.dense(), before[weight.path].dense(), h)
            for weight, h in zip(view.weights(), self.curvature, strict=True)
        ]
        predicted = sum(float(0.5 * (h * (now - then).square()).sum()) for now, then, h in pairs)
        MatchMoments().apply(view, task)
        body = encode(view.network, original, QUICK)
        small = decode(body, original).eval()
        if not same_state(small, view.network):
            raise AssertionError("trellis: a file did not come back")
        kl = float(divergence(self.wanted, answers(small, task)).mean())
        print(f"{len(body)} bytes, KL {predicted:.5f} predicted, {kl:.5f} measured", flush=True)
        return {"bytes": len(body), "predicted": predicted, "measured": kl, "seconds": seconds}


def answers(network: nn.Module, task: Task) -> Tensor:
    """The outputs on the first validation pictures."""
    data = task.validation.first(PICTURES)
    with torch.no_grad():
        return torch.cat([call(network.eval(), inputs) for inputs, _ in data.batches(100)])


def rows_of(name: str, piece: dict[str, Any]) -> list[dict[str, Any]]:
    """Size of each trellis over the smallest even grid's, and where the even grids stand."""
    rivals = [family for family in families(name) if "states" not in family]
    rows = []
    for family in families(name):
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
    piece(sys.argv[1])
