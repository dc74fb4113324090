"""Low rank on a half-width VGG-16 and ResNet-56, CIFAR-10: all methods at equal multiply-adds, then one fine-tuned shortly.

Shares are of the whole network's multiply-adds; each method's knob is set so that the network comes out at the share.
Points lost without fine-tuning are those of the 5,000 images that choices are made on: ResNet-56, which was pretrained
elsewhere, has seen them in its training, VGG-16 has not. The test is for the fine-tuned networks alone. Pieces can be
run beforehand: `python -m bench.lowrank fine-tuned half_vgg`; results are kept.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.half_vgg import half_vgg
from bench.kept import kept
from bench.result import CACHE, Clock, row
from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe
from cortado.layers.factors import factored_network
from cortado.methods.factorize.cp import FactorizeCp
from cortado.methods.factorize.factorize import Factorize
from cortado.methods.factorize.jaderberg import BASIS, COLUMNS, FactorizeJaderberg
from cortado.methods.factorize.nonlinear import SCHEMES, FactorizeNonlinear
from cortado.methods.factorize.scheme import Scheme
from cortado.methods.factorize.svd import WHOLE
from cortado.methods.factorize.targets import find_targets
from cortado.methods.factorize.tucker import TUCKER, FactorizeTucker
from cortado.methods.match_moments import MatchMoments
from cortado.nets.resnet import resnet_56
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.task.measure import mean_score
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
SHARES = {"half_vgg": (0.5, 0.33), "resnet_56": (0.5,)}
"""Of the multiply-adds. At a half most methods lose less than a point on VGG-16, which tells little; hence a third as well."""
NETWORKS: dict[str, Callable[[], nn.Module]] = {"half_vgg": half_vgg, "resnet_56": lambda: resnet_56(weights=True)}
METHODS = {
    "SVD": "factorize/svd",
    "response": "factorize/response",
    "Jaderberg 1, filters": "factorize/jaderberg kind=1 fit=filters",
    "Jaderberg 1, outputs": "factorize/jaderberg kind=1",
    "Jaderberg 2, filters": "factorize/jaderberg fit=filters",
    "Jaderberg 2, outputs": "factorize/jaderberg",
    "CP, filters": "factorize/cp starts=1 sweeps=40 fit=filters",
    "CP, outputs": "factorize/cp starts=1 sweeps=40",
    "Tucker, filters": "factorize/tucker fit=filters",
    "Tucker, outputs": "factorize/tucker",
    "non-linear asymmetric, whole filters": "factorize/nonlinear",
    "non-linear asymmetric, columns and rows": "factorize/nonlinear chain=columns",
    "non-linear asymmetric, CP": "factorize/nonlinear chain=cp",
}
TUNED = {
    "half_vgg": ("factorize/cp starts=1 sweeps=40", 0.38),
    "resnet_56": ("factorize/cp starts=1 sweeps=40", 0.385),
}
TUNE = {
    "half_vgg": "finetune epochs=4 lr=1e-3 teacher=0.5 average=0.3",
    "resnet_56": "finetune epochs=1 lr=5e-4 teacher=0.7 average=0.3",
}
"""VGG-16 was fine-tuned for 2 epochs at half the rate first: 1.2 points lost, 0.12 on the images that choices are made on."""


def run() -> list[dict[str, Any]]:
    """Every piece that was run before, and the others now."""
    rows = []
    for name in NETWORKS:
        for share in SHARES[name]:
            found = {method: untuned(name, method, share) for method in METHODS}
            rows += untuned_rows(name, share, found)
        rows += tuned_rows(name, tuned(name))
    return rows


def untuned_rows(name: str, share: float, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method, and the bar: non-linear asymmetric against the best of the others."""
    rows = []
    lost = {method: one["original"] - max(one["raw"], one["matched"]) for method, one in found.items()}
    others = min(value for method, value in lost.items() if not method.startswith("non-linear"))
    for method, one in found.items():
        what = f"{name} at {share:g} of the multiply-adds: {method}, points lost"
        loss = {key: one["original"] - one[key] for key in ("matched", "raw")}
        detail = f"matched {loss['matched']:.2f}, raw {loss['raw']:.2f}, share {one['share']:.3f}"
        rows.append(row(f"{what} ({detail})", lost[method], "points"))
    best = min(value for method, value in lost.items() if method.startswith("non-linear"))
    rows.insert(
        0, row(f"{name} at {share:g}: non-linear asymmetric, points lost; best other as bar", best, "points", others)
    )
    return rows


def tuned_rows(name: str, one: dict[str, Any]) -> list[dict[str, Any]]:
    """The fine-tuned network: fewer multiply-adds, points lost, measured time."""
    rows = [
        row(f"{name}, {one['recipe']}: times fewer multiply-adds", one["fewer"], "x", 2.5, "higher", "2 to 4 x at 1 %"),
        row(f"{name}, fine-tuned: points lost ({one['interval']})", one["lost"], "points", 1.0),
        row(f"{name}, fine-tuned: lost before fine-tuning, on choice", one["lost_before"], "points"),
        row(f"{name}, fine-tuned: training", one["minutes"], "min"),
    ]
    for batch, (original_ms, small_ms) in one["eager_ms"].items():
        says = f"{name}, fine-tuned: torch eager, batch {batch}: {original_ms:.2f} ms plain, {small_ms:.2f} ms as factors; ratio"
        rows.append(row(says, original_ms / small_ms, "x", None, "higher"))
    return rows


def untuned(name: str, method: str, share: float) -> dict[str, Any]:
    settings = [name, METHODS[method], share]
    return kept(
        f"lowrank/{name}_{method.replace(' ', '_').replace(',', '')}_{share:g}", settings, lambda: fresh(*settings)
    )


def fresh(name: str, line: str, share: float) -> dict[str, Any]:
    """One method on one network: score as it comes, and with matched moments."""
    task, network = cifar10.task(), NETWORKS[name]().eval()
    whole = cost_of(network, task)
    clock, made = Clock(), copy.deepcopy(network)
    method = at_share(network, task, line, share)
    method.apply(View(made, network, task.example), task)
    minutes, raw = clock.minutes, mean_score(made, task.validation, task.metric)
    MatchMoments().apply(View(made, network, task.example, reference=network), task)
    original = kept(
        f"lowrank/plain_{name}", [name], lambda: {"validation": mean_score(network, task.validation, task.metric)}
    )
    return {
        "original": original["validation"],
        "raw": raw,
        "matched": mean_score(made, task.validation, task.metric),
        "share": cost_of(made, task) / whole,
        "minutes": minutes,
    }


def cost_of(network: nn.Module, task: Task) -> float:
    return profile(network, task.example).total("multiply_adds").value


def at_share(network: nn.Module, task: Task, line: str, share: float) -> Factorize:
    """The method with the keep at which the whole network comes to `share`: what it cannot factor stays whole."""
    method = read_recipe(line).stages[0]
    assert isinstance(method, Factorize)
    view = View(copy.deepcopy(network), network, task.example)
    reached = sum(one.dense_cost for one in find_targets(view, "*") if scheme_of(method).suits(one)) / len(task.example)
    whole = cost_of(network, task)
    keep = (share * whole - (whole - reached)) / reached
    made = read_recipe(f"{line} keep={keep:.4f}").stages[0]
    assert isinstance(made, Factorize)
    return made


def scheme_of(method: Factorize) -> Scheme:
    """The chain of kernels, which says what layers a method can factor; CP and Tucker factor the same ones."""
    if isinstance(method, FactorizeJaderberg):
        return COLUMNS if method.kind == 2 else BASIS
    if isinstance(method, FactorizeNonlinear):
        return SCHEMES[method.chain]
    return TUCKER if isinstance(method, (FactorizeCp, FactorizeTucker)) else WHOLE


def tuned(name: str) -> dict[str, Any]:
    line, share = TUNED[name]
    settings = [name, line, share, TUNE[name]]
    return kept(f"lowrank/tuned_{name}", settings, lambda: fresh_tuned(name))


def fresh_tuned(name: str) -> dict[str, Any]:
    """Factored, then trained for a few epochs with the original network as teacher; the test result."""
    clock, task, network = Clock(), cifar10.task(), NETWORKS[name]().eval()
    line, share = TUNED[name]
    method = at_share(network, task, line, share)
    stages = [method, *read_recipe(TUNE[name]).stages]
    small, report = compress(network, task, stages, folder=CACHE / "lowrank" / f"run_{name}", resume=True)
    compared = report.test
    interval = "unknown" if compared.low is None else f"95 % interval {-compared.high:.2f} to {-compared.low:.2f}"
    return {
        "recipe": f"{line} keep={method.keep:g}",
        "fewer": cost_of(network, task) / cost_of(small, task),
        "lost": -compared.difference,
        "interval": f"{interval}, paired, {compared.samples} images",
        "lost_before": report.original_validation - report.stages[0].score,
        "eager_ms": {batch: timed(network, factored_network(small), task, batch) for batch in (1, 32)},
        "minutes": clock.minutes,
    }


def timed(original: nn.Module, small: nn.Module, task: Task, batch: int, rounds: int = 15) -> tuple[float, float]:
    """Median milliseconds of both, run in turns on one thread."""
    inputs, _ = next(task.validation.batches(batch))
    threads, taken = torch.get_num_threads(), ([], [])  # type: ignore[var-annotated]
    torch.set_num_threads(1)
    with torch.inference_mode():
        for number in range(rounds + 3):
            for network, times in zip((original.eval(), small.eval()), taken, strict=True):
                start = time.perf_counter()
                network(inputs)
                if number >= 3:
                    times.append((time.perf_counter() - start) * 1e3)
    torch.set_num_threads(threads)
    return statistics.median(taken[0]), statistics.median(taken[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "tuned":
        print(sys.argv[2:], tuned(sys.argv[2]), flush=True)
    else:
        for share in SHARES[sys.argv[2]]:
            for method in METHODS:
                print(method, share, untuned(sys.argv[2], method, share), flush=True)
