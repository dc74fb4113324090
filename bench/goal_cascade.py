"""goal_cascade: the planner's fastest ResNet-56 that loses at most a point, where ResNet-8 and ResNet-20 may come first.

The task and the limit are those of goal_latency: 500 test images, which no network has seen, are the validation data, and the
other 500 the test data's. The planner has ten minutes on one core and both members by name. Its network and integers alone
run the test images one at a time in ONNX Runtime, in turns with the original, by processor time of one thread; the bar is
what the planner reached in three quarters of an hour without members.

    python -m bench.goal_cascade      the search alone, kept
"""

import dataclasses
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.after import after
from bench.cascade_cifar import MEMBERS
from bench.goal_latency import LIMIT, MOST_LOST, OURS, WHOLE, lost_row, task_of
from bench.kept import kept
from bench.result import CACHE, PIECES, RESULTS, row
from cortado.lowering.lower import lowered
from cortado.methods.conditional.thresholds import sures_in
from cortado.nets.resnet import resnet_56
from cortado.planner.search.goal import reach
from cortado.planner.search.shapes import integers
from cortado.report.report import paired_interval
from cortado.running.eval_mode import eval_mode
from cortado.runtimes.path_forms import lower_fastest
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.runtimes.stream import stream_of, streamed
from cortado.runtimes.timing import speed_ratio
from cortado.task.measure import scores
from cortado.task.task import Task

SEEDS = [0]
BUDGET, RUNTIME = "10 min", "onnxruntime"
FOLDER = CACHE / "goal_cascade"
SECONDS = 20.0


def searched() -> dict[str, Any]:
    """What the planner reached, with every trial; an interrupted search goes on."""
    got = reach(
        resnet_56(weights=True).eval(), task_of(), [LIMIT], minimise="latency", time_limit=BUDGET, folder=FOLDER,
        resume=True, runtimes=[RUNTIME], members=MEMBERS,
    )  # fmt: skip
    trials = [{**dataclasses.asdict(one), "recipe": one.recipe["stages"]} for one in got.trials]
    found = {"trials": trials, "text": got.text(), "best": got.best.text(), "recipe": got.best.recipe["stages"]}
    return dict(json.loads(json.dumps(found).replace(str(FOLDER), FOLDER.name)))


def piece() -> dict[str, Any]:
    """The search, kept when it is done."""
    return kept("goal_cascade", [BUDGET, LIMIT, MEMBERS], searched, PIECES)


def run() -> list[dict[str, Any]]:
    """Points lost, where samples stop, and times in turns."""
    found = piece()
    task, original = task_of(), resnet_56(weights=True).eval()
    networks = {
        "original": original,
        OURS: after(original, task, found["recipe"]),
        WHOLE: after(original, task, [*integers(), "match_moments"]),
    }
    rows = [row(f"trials of the planner; the best: {found['best']}", len(found["trials"]), "trials")]
    return [*rows, *stop_rows(networks[OURS], task), *file_rows(networks, task)]


def stop_rows(network: nn.Module, task: Task) -> list[dict[str, Any]]:
    """The share of test images that each answer is taken for; none without a cascade."""
    stops = []
    with eval_mode(network):
        for inputs, _ in task.test.batches(100):
            network(inputs)
            stops += [sure.left_at() for sure in sures_in(network)]
    places = torch.cat(stops) if stops else torch.zeros(0)
    return [
        row(f"test images that stop at answer {place + 1}", 100 * float((places == place).float().mean()), "%")
        for place in range(int(places.max()) + 1 if stops else 0)
    ]


def file_rows(networks: dict[str, nn.Module], task: Task) -> list[dict[str, Any]]:
    """Scores and times of all files."""
    runtime, rows, sessions = runtime_by_name(RUNTIME), [], []
    before = scores(networks["original"], task.test, task.metric)
    with tempfile.TemporaryDirectory() as folder:
        for number, (what, network) in enumerate(networks.items()):
            own = Path(folder) / str(number)
            own.mkdir()
            low = lowered(network, task.example)
            file, form = lower_fastest(runtime, network, low, task.example, task.validation, own)
            sessions.append(Running(runtime.load(file, 1)))
            after_it = scores(sessions[-1], task.test, task.metric, batch=100)
            compared = paired_interval(before, after_it, task.metric.scale)
            if what != "original":
                bar = MOST_LOST if what == OURS else None
                rows.append({**lost_row(f"{RUNTIME}, {what}", compared, bar), "form": form})
        return rows + time_rows(list(networks), sessions, task)


def time_rows(names: list[str], sessions: list[Running], task: Task) -> list[dict[str, Any]]:
    """How many times faster than the original file each is, over the test images one at a time."""
    inputs = stream_of(task.test, 1)
    calls = [[partial(session, given) for given in inputs] for session in [*sessions, sessions[0]]]
    taken = streamed(calls, SECONDS, time.process_time)
    means = taken.mean(2)
    rows = []
    for place, what in enumerate(names[1:], 1):
        found = speed_ratio(means[:, 0], means[:, place])
        middle, late = np.quantile(taken[:, place], (0.5, 0.99))
        facts = {"mean_ms": float(np.median(means[:, place])), "p50_ms": float(middle), "p99_ms": float(late)}
        says = f"{RUNTIME}, {what}: times faster than the original file (quartiles {found.low:.2f} to {found.high:.2f})"
        rows.append(row(says, found.median, "x", without_members() if what == OURS else None, "higher", **facts))
    slow = np.quantile(taken[:, 0], 0.99)
    says = f"{RUNTIME}, {OURS}: 99th percentile of a call over the original's"
    rows.append(row(says, float(np.quantile(taken[:, 1], 0.99) / slow), "x"))
    again = speed_ratio(means[:, 0], means[:, -1])
    noise = row(f"{RUNTIME}: original file against itself (A/A)", again.median, "x", low=again.low, high=again.high)
    return [*rows, noise]


def without_members() -> float:
    """Return how many times faster the planner's network without members is, as stored."""
    stored = json.loads((RESULTS / "goal_latency.json").read_text(encoding="utf8"))["rows"]
    says = f"{RUNTIME}, {OURS}: times faster than the original file"
    return float(next(one["value"] for one in stored if one["what"] == says))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(piece()["text"] + "\n")
