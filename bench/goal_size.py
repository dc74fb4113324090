"""goal_size: the planner's smallest file for a score, beside single methods, Deep Compression and NNCF.

    python -m bench.goal_size ResNet-20 planner      one piece (planner, singles, deep_compression, nncf), kept

The planner has half an hour or less, on one core: `reach(..., ["score >= -0.5 %"])`. A single method has its strength
raised until the score is lost on the validation data, and recovers for as many epochs as said beside it; Deep Compression
prunes, shares and recovers likewise. NNCF rounds to 8 bits after training; its file counts as xz packs it. The
pretrained ResNet has seen all training images, so that 500 test images are its validation data and the other 500 its
test data's. The ImageNet sample has 100 pictures to calibrate, too few to train on.
"""

import dataclasses
import lzma
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.goal_latency import task_of as half_of_cifar10
from bench.int8_imagenet import NETWORKS as IMAGENET
from bench.kept import kept
from bench.networks import trained
from bench.result import CACHE, row
from bench.rivals import static_int8
from cortado.engine.compress import compress
from cortado.lowering.lower import lowered
from cortado.nets.resnet import resnet_20
from cortado.nets.tiny_darknet import tiny_darknet
from cortado.planner.search.goal import reach
from cortado.report.report import Compared, Report, paired_interval
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.task.measure import scores
from cortado.task.task import Task
from cortado.tasks import imagenet

SEEDS = [0]
LIMIT, MOST_LOST = "score >= -0.5 %", 0.5
BUDGETS = {"LeNet-5": "12 min", "ResNet-20": "30 min", "Tiny Darknet": "24 min"}
"""Of the planner, on one core."""
PICTURE = IMAGENET["Tiny Darknet"][1]
Made = Callable[[], tuple[nn.Module, Task]]
NETWORKS: dict[str, Made] = {
    "LeNet-5": lambda: trained("LeNet-5", 0),
    "ResNet-20": lambda: (resnet_20(weights=True).eval(), half_of_cifar10()),
    "Tiny Darknet": lambda: (tiny_darknet(weights=True).eval(), imagenet.task(picture=PICTURE)),
}
EPOCHS = {"LeNet-5": 4.0, "ResNet-20": 1.0, "Tiny Darknet": 0.0}
"""Of recovery, for single methods and after each step of Deep Compression."""
SINGLES = {
    "rounding": [f"quantize/weights bits={bits}" for bits in (8, 6, 5, 4, 3, 2)],
    "shared values": [f"share/kmeans bits={bits}" for bits in (5, 4, 3, 2, 1)],
    "pruning": [f"prune/weights keep={keep}" for keep in (0.5, 0.3, 0.2, 0.1, 0.05)],
}
DEEP = [f"prune/weights keep={keep} | share/kmeans bits={bits}" for keep, bits in ((0.5, 5), (0.3, 4), (0.1, 4))]
ARMS = ("planner", "singles", "deep_compression", "nncf")
SMALLER_THAN_NNCF = 0.7


def run() -> list[dict[str, Any]]:
    """Every piece that is kept, the others now."""
    return [one for name in NETWORKS for one in rows_of(name)]


def rows_of(name: str) -> list[dict[str, Any]]:
    """The planner's file, and how much smaller it is than each other that keeps the score."""
    found = {arm: piece(name, arm) for arm in ARMS}
    ours = found["planner"]
    rows = [row(f"{name}, planner ({ours['what']}): file", ours["size"], "B", smaller=ours["smaller"])]
    rows.append(row(f"{name}, planner: points lost ({ours['interval']})", ours["lost"], "points", MOST_LOST))
    for arm, bar in (("singles", 1.0), ("deep_compression", 1.0), ("nncf", SMALLER_THAN_NNCF)):
        other = found[arm]
        if other["size"] is None:
            rows.append(row(f"{name}, {arm}: no setting keeps the score", None, "B"))
            continue
        says = f"{name}: bytes over those of {arm} ({other['what']}, {other['lost']:.2f} points lost)"
        made = row(says, ours["size"] / other["size"], "x", bar, size=other["size"], interval=other["interval"])
        # Smaller counts at an equal score only: a file that lost more than it may on the test data meets no bar.
        rows.append(
            made if ours["lost"] <= MOST_LOST else {**made, "what": f"{says}; not at equal score", "met": False}
        )
    return rows


def piece(name: str, arm: str) -> dict[str, Any]:
    settings = [LIMIT, EPOCHS[name], SINGLES, DEEP] if arm != "planner" else [BUDGETS[name], LIMIT]
    makers = {"planner": planned, "singles": singles, "deep_compression": deep_compression, "nncf": nncf}
    return kept(f"goal_size/{name}_{arm}".replace(" ", "_"), settings, partial(makers[arm], name))


def planned(name: str) -> dict[str, Any]:
    """What the planner reaches, with its trials."""
    network, task = NETWORKS[name]()
    folder = CACHE / "goal_size" / name.replace(" ", "_")
    got = reach(network, task, [LIMIT], time_limit=BUDGETS[name], folder=folder, resume=True)
    trials = [{**dataclasses.asdict(one), "recipe": one.recipe["stages"]} for one in got.trials]
    return {**facts(got.report, got.best.text()), "trials": trials, "text": got.text()}


def singles(name: str) -> dict[str, Any]:
    """Of all single methods the smallest file that keeps the score on validation data; tested alone."""
    return smallest(name, [[f"{line}{recovery(name)}" for line in lines] for lines in SINGLES.values()])


def deep_compression(name: str) -> dict[str, Any]:
    """Prune, recover, share, recover, at the strength that just keeps the score."""
    steps = [f"{prune}{recovery(name)} |{share}{recovery(name)}" for prune, share in (one.split("|") for one in DEEP)]
    return smallest(name, [steps])


def recovery(name: str) -> str:
    return f" | finetune epochs={EPOCHS[name]} lr=3e-4 teacher=0.5 average=0.3 statistics=kept" if EPOCHS[name] else ""


def smallest(name: str, ladders: list[list[str]]) -> dict[str, Any]:
    """Climb each PTQ search until the score is lost on validation data; the smallest file that kept it."""
    network, task = NETWORKS[name]()
    blind, best, tried = task.for_trial(), None, []
    for lines in ladders:
        for line in lines:
            small, report = compress(network, blind, line, limits=[LIMIT])
            tried.append([line, report.size_bytes, report.stages[-1].score, report.met])
            print(name, *tried[-1], flush=True)
            if not report.met:
                break
            if best is None or report.size_bytes < best[1].size_bytes:
                best = (line, report, small)
    if best is None:
        return {"size": None, "tried": tried}
    compared = judged(network, best[2], task)
    return {**facts(best[1], best[0], compared), "tried": tried}


def nncf(name: str) -> dict[str, Any]:
    """8 bits by NNCF for OpenVINO, packed by xz."""
    network, task = NETWORKS[name]()
    assert task.calibration is not None
    openvino = runtime_by_name("openvino")
    with tempfile.TemporaryDirectory() as folder:
        original = runtime_by_name("onnxruntime").lower(lowered(network, task.example), task.example, Path(folder))
        batches = [inputs for inputs, _ in task.calibration.first(256).batches(1)]
        target = static_int8.nncf(original, Path(folder) / "rounded.xml", batches, "MIXED")
        body = b"".join(part.read_bytes() for part in (target, target.with_suffix(".bin")))
        compared = judged(network, Running(openvino.load(target, 1)), task)
    return {"size": len(lzma.compress(body)), "raw": len(body), "what": "8 bits, packed by xz", **lost(compared)}


def judged(original: nn.Module, small: nn.Module, task: Task) -> Compared:
    """Both on the test data."""
    with torch.no_grad():
        pair = [scores(one, task.test, task.metric, batch=100) for one in (original, small)]
    return paired_interval(*pair, task.metric.scale)


def facts(report: Report, what: str, compared: Compared | None = None) -> dict[str, Any]:
    """What a row needs."""
    smaller = report.original_bytes / report.size_bytes
    return {"size": report.size_bytes, "smaller": smaller, "what": what, **lost(compared or report.test)}


def lost(compared: Compared) -> dict[str, Any]:
    """Points lost, with the interval."""
    interval = "interval unknown"
    if compared.low is not None and compared.high is not None:
        interval = f"95 % interval {-compared.high:.2f} to {-compared.low:.2f}, paired, {compared.samples} images"
    return {"lost": -compared.difference, "score": compared.compressed, "interval": interval}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(piece(sys.argv[1], sys.argv[2]), flush=True)
