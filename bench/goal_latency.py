"""goal_latency: the planner's fastest ResNet-56 that loses at most a point, beside integers alone and channels alone.

The planner has three quarters of an hour on one core: `reach(..., ["score >= -1 %"], minimise="latency")` in ONNX
Runtime. The pretrained network has seen all training images, so that losses show on test images alone: 500 of them
are the validation data, which all trials are compared on, and the other 500 the test data's. Channels alone are cut evenly
to a third of the multiply-adds, in multiples of 8, and recover for five epochs: of the cuts of the bench cut_clock
the fastest for one sample. All files take turns, round by round, with one sample a call.

    python -m bench.goal_latency planner | channels      one piece, kept
"""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.after import after
from bench.kept import kept
from bench.result import CACHE, row
from cortado.engine.compress import compress
from cortado.file.artifact import load, save
from cortado.lowering.lower import lowered
from cortado.nets.resnet import resnet_56
from cortado.planner.search.goal import reach
from cortado.planner.search.shapes import EVENLY, integers
from cortado.report.report import Compared, paired_interval
from cortado.runtimes.measured import batch_of, bound
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.runtimes.timing import Call, interleaved, is_noisy, speed_ratio
from cortado.task.measure import scores
from cortado.task.task import Data, Task
from cortado.tasks import cifar10

SEEDS = [0]
BUDGET, LIMIT, MOST_LOST = "45 min", "score >= -1 %", 1.0
RUNTIMES = ("onnxruntime", "openvino")
OURS, WHOLE, CHANNELS = "the planner's", "integers alone", "channels alone"
FOLDER = CACHE / "goal_latency"
CUT = f"{EVENLY[1]} | finetune epochs=5 optimizer=sgd lr=0.02 decay=2e-4 teacher=0.5"
SECONDS, TRIES = 10.0, 5


def task_of() -> Task:
    """Choice data that the pretrained network has not seen: half of the test images; the test data's are the others."""
    task = cifar10.task()
    inputs, targets = task.test.inputs, task.test.targets
    halves = [Data(inputs[part], targets[part], task.test.prepare) for part in (slice(0, 500), slice(500, None))]
    return dataclasses.replace(task, validation=halves[0], test=halves[1])


def searched() -> dict[str, Any]:
    """What the planner reached, with every trial; an interrupted search goes on."""
    task, original = task_of(), resnet_56(weights=True).eval()
    got = reach(
        original, task, [LIMIT], minimise="latency", time_limit=BUDGET, folder=FOLDER / "search", resume=True,
        runtimes=["onnxruntime"],
    )  # fmt: skip
    save(got.network, FOLDER / "planner.cortado", original)
    trials = [{**dataclasses.asdict(one), "recipe": one.recipe["stages"]} for one in got.trials]
    return {"trials": trials, "text": got.text(), "best": got.best.text()}


def channels() -> dict[str, Any]:
    """Channels alone, kept as a file."""
    task, original = task_of(), resnet_56(weights=True).eval()
    blind = task.for_trial()
    small, report = compress(original, blind, CUT, folder=FOLDER / "channels", resume=True)
    save(small, FOLDER / "channels.cortado", original)
    return {"validation": [stage.score for stage in report.stages]}


def pieces() -> dict[str, dict[str, Any]]:
    """Both trainings, each kept when it is done."""
    return {name: piece(name) for name in ("planner", "channels")}


def piece(name: str) -> dict[str, Any]:
    makers = {"planner": (searched, [BUDGET, LIMIT]), "channels": (channels, [CUT])}
    make, settings = makers[name]
    return kept(f"goal_latency/{name}", settings, make)


def run() -> list[dict[str, Any]]:
    """Points lost by each file, and times in turns."""
    found = pieces()["planner"]
    task, original = task_of(), resnet_56(weights=True).eval()
    networks = {
        "original": original,
        OURS: load(FOLDER / "planner.cortado", original),
        WHOLE: after(original, task, [*integers(), "match_moments"]),
        CHANNELS: load(FOLDER / "channels.cortado", original),
    }
    rows = [row(f"trials of the planner; the best: {found['best']}", len(found["trials"]), "trials")]
    for name in RUNTIMES:
        rows += rows_of(name, networks, original, task)
    return rows


def rows_of(name: str, networks: dict[str, nn.Module], original: nn.Module, task: Task) -> list[dict[str, Any]]:
    """Scores and times of all files in one runtime."""
    runtime, rows, calls = runtime_by_name(name), [], []
    before = scores(original, task.test, task.metric)
    with tempfile.TemporaryDirectory() as folder:
        for number, (what, network) in enumerate(networks.items()):
            own = Path(folder) / str(number)
            own.mkdir()
            file = runtime.lower(lowered(network, task.example), task.example, own)
            session = runtime.load(file, 1)
            after_it = scores(Running(session), task.test, task.metric, batch=100)
            compared = paired_interval(before, after_it, task.metric.scale)
            if what != "original":
                rows.append(lost_row(f"{name}, {what}", compared, MOST_LOST if what == OURS else None))
            calls.append(bound(session, batch_of(task.example, 1)))
        return rows + time_rows(name, list(networks), calls)


def lost_row(what: str, found: Compared, bar: float | None) -> dict[str, Any]:
    """Points lost with the interval."""
    assert found.low is not None and found.high is not None
    interval = f"95 % interval {-found.high:.2f} to {-found.low:.2f}, paired, {found.samples} images"
    return row(f"{what}: points lost ({interval})", -found.difference, "points", bar, score=found.compressed)


def time_rows(name: str, names: list[str], calls: list[Call]) -> list[dict[str, Any]]:
    """How many times faster than the original file each is, and ours than the other two; the quietest of some tries."""
    tries = []
    for _ in range(TRIES):
        taken = interleaved([*calls, calls[0]], SECONDS)
        again = speed_ratio(taken[:, 0], taken[:, -1])
        tries.append((again.high - again.low + abs(again.median - 1), taken, again))
        if not is_noisy(again):
            break
    _, taken, again = min(tries, key=lambda one: one[0])
    columns = {what: taken[:, place] for place, what in enumerate(names)}
    rows = []
    for other in (WHOLE, CHANNELS):
        found = speed_ratio(columns[other], columns[OURS])
        says = f"{name}: the planner's, times faster than {other} (quartiles {found.low:.2f} to {found.high:.2f})"
        rows.append(row(says, found.median, "x", 1.0, "higher"))
    for what in (OURS, WHOLE, CHANNELS):
        found = speed_ratio(columns["original"], columns[what])
        milliseconds = float(np.median(columns[what]))
        rows.append(row(f"{name}, {what}: times faster than the original file", found.median, "x", ms=milliseconds))
    noise = row(f"{name}: original file against itself (A/A)", again.median, "x", low=again.low, high=again.high)
    return [*rows, noise]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for given in sys.argv[1:]:
        print(given, piece(given), flush=True)
