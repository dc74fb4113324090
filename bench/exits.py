"""exits: early exits of one network, and a small network in front, with a bound that holds on pictures nobody has seen.

ResNet-8 and ResNet-20 were trained here (bench/held_out.py): thresholds come from 5,000 pictures that they have not seen, and
10,000 others score them. ResNet-56 as published knows all but the 1,000 test pictures: its heads learn from 25,000 of those,
and its thresholds come from 5,000 of them. Times are processor time of one thread in ONNX Runtime, over different pictures.
"""

import dataclasses
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.after import after
from bench.held_out import task as held_out
from bench.held_out import trained
from bench.result import row
from cortado.lowering.lower import lowered
from cortado.methods.conditional.thresholds import sures_in, upper_bound
from cortado.nets.resnet import resnet_56
from cortado.parts.blocks.exit import Exit, exit_head
from cortado.parts.blocks.rows import FirstSure, left_at
from cortado.report.report import paired_interval
from cortado.running.eval_mode import eval_mode
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.runtimes.stream import stream_of, streamed
from cortado.task.measure import scores
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
LOSE, SURE = 1.0, 0.9
BATCHES = (1, 32)
SECONDS = 8.0
HEADS = {"epochs": 3, "lr": 2e-3, "optimizer": "adam", "batch": 128, "precision": "bfloat16"}
LEAST_SPEED, MOST_LOST = 1.2, 0.3
PICTURES = 25_000


def run() -> list[dict[str, Any]]:
    """All rows."""
    torch.set_num_threads(1)
    alone, unseen = trained("ResNet-20", 0).eval(), held_out()
    front = [{"network": "bench.exits:small"}]
    rows = []
    for name, first in (
        ("exits after the second stage and in the third", {"conditional/exits": {"at": "layer2, layer3.1", **HEADS}}),
        ("ResNet-8 in front", {"conditional/cascade": {"members": front}}),
    ):
        made = after(alone, unseen, [first, thresholds(seen=False)])
        rows += rows_of(f"ResNet-20, {name}", alone, made, unseen, bound=LOSE)
    deep, known = resnet_56(weights=True).eval(), cifar10.task()
    known = dataclasses.replace(known, train=known.train.first(PICTURES))
    made = after(deep, known, [{"conditional/exits": {"at": "layer2.8, layer3.4", **HEADS}}, thresholds(seen=True)])
    return rows + rows_of(
        "ResNet-56, exits at two thirds and late in the third stage", deep, made, known, speed=LEAST_SPEED
    )


def small() -> nn.Module:
    """Return ResNet-8, trained here."""
    return trained("ResNet-8", 0).eval()


def thresholds(seen: bool) -> dict[str, Any]:
    """Return the stage that says who leaves."""
    return {"conditional/thresholds": {"lose": LOSE, "sure": SURE, "seen": seen}}


def rows_of(
    name: str, alone: nn.Module, made: nn.Module, task: Task, bound: float | None = None, speed: float | None = None
) -> list[dict[str, Any]]:
    """Where samples stop, what it costs in score, and how much faster it is, against the network alone."""
    before, found = scores(alone, task.test, task.metric), scores(made, task.test, task.metric)
    change = paired_interval(before, found, 100.0)
    assert change.low is not None and change.high is not None
    harmed, count = int((found < before).sum()), len(found)
    rows = [
        row(f"{name}: accuracy alone", change.original, "%"),
        row(
            f"{name}: points lost (95 % interval {-change.high:+.2f} to {-change.low:+.2f}, {count} pictures)",
            -change.difference, "points", MOST_LOST if speed else None,
        ),
        row(f"{name}: harmed pictures", 100 * harmed / count, "%", bound, most=100 * upper_bound(harmed, count, SURE)),
    ]  # fmt: skip
    rows += [
        row(f"{name}: leave at answer {place + 1}", 100 * share, "%") for place, share in enumerate(stops(made, task))
    ]
    return rows + time_rows(name, alone, made, task, speed)


def stops(network: nn.Module, task: Task) -> list[float]:
    """Return the share of the test pictures that stop at each answer."""
    place = []
    with eval_mode(network):
        for inputs, _ in task.test.batches(256):
            network(inputs)
            asked: list[Any] = [choice for sure in in_order(network) for choice in sure.choices]
            place.append(left_at([choice.ran.rows for choice in asked]))
    found = torch.cat(place)
    return (torch.bincount(found).double() / len(found)).tolist()


def in_order(network: nn.Module) -> list[FirstSure]:
    """Return the modules that choose among answers, the one that is asked first in front."""
    exits = [exit_head(module).sure for module in network.modules() if isinstance(module, Exit)]
    return exits or sures_in(network)


def time_rows(name: str, alone: nn.Module, made: nn.Module, task: Task, bar: float | None) -> list[dict[str, Any]]:
    """How many times faster the mean picture is."""
    runtime = runtime_by_name("onnxruntime")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for place, network in enumerate((alone, made)):
            own = Path(folder) / str(place)
            own.mkdir()
            files.append(runtime.lower(lowered(network, task.example), task.example, own))
        for batch in BATCHES:
            inputs = stream_of(task.test, batch, 1000 // batch)
            calls = [[partial(Running(runtime.load(file, 1)), given) for given in inputs] for file in files]
            means = streamed(calls, SECONDS, time.process_time).mean(2)
            low, middle, high = np.quantile(means[:, 0] / means[:, 1], (0.25, 0.5, 0.75))
            what = f"{name}: times faster in ONNX Runtime, batch {batch}"
            rows.append(row(what, float(middle), "x", bar, "higher", quartiles=[float(low), float(high)]))
    return rows
