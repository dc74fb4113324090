"""msdnet (Huang et al., 2018): one network for many mean costs against a network for each, on the clock of ONNX Runtime.

bench/msdnet_trained.py trains. For mean costs in multiply-adds, thresholds are chosen on 5,000 validation pictures; each
set of thresholds is a file, and so is each network of one answer. All files are scored on 10,000 held-out pictures, and timed
in turns on the same stream of them, one at a time and 32 at a time: the processor's time for one thread, as the mean over
pictures. A file is above the fixed networks if its score is above the line through theirs, by the logarithm of time.
"""

import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.held_out import task
from bench.msdnet_trained import ALONE, EXITS, NETS, answers_of, learned
from bench.result import row
from cortado.lowering.lower import lowered
from cortado.network.profile.answers import multiply_adds_so_far
from cortado.network.profile.profile import profile
from cortado.parts.blocks.rows import NEVER, confidence
from cortado.report.pages.cost_chart import CostLine, cost_chart, picture
from cortado.running.call import call
from cortado.runtimes.rows import COMPACTION
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.runtimes.stream import stream_of, streamed
from cortado.task.data import Data
from cortado.task.mean_cost import ALWAYS, Spent, anytime_curve, mean_cost_curve

SEEDS = [0]
FIXED = tuple(name for name in NETS if name not in (EXITS, ALONE))
MEANS = 9
"""From the cost of the first answer to that of the last, by equal factors."""
STREAMS = {1: 200, 32: 16}
"""Batches in the stream, by their size."""
SECONDS = 60.0
POINTS, FACTOR = 5, 4.0
PICTURE = Path(__file__).parents[1] / "docs" / "msdnet.svg"


@dataclass(frozen=True)
class Timed:
    """A file: what it scores on the held-out pictures, in %, and the milliseconds of a picture, by size of batch."""

    score: float
    ms: dict[int, float]


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return scores and costs of all answers, the files on the clock, and over which factor it is above."""
    torch.set_num_threads(1)
    seed = seeds[0]
    network, alone = learned(EXITS, seed), learned(ALONE, seed)
    fixed = {name: learned(name, seed) for name in FIXED}
    example = task().example
    costs = [float(cost) for cost in multiply_adds_so_far(network, example)["choose"] if cost is not None]
    given = {part: answers_of(network, getattr(task(), part)) for part in ("validation", "test")}
    right = (given["test"].argmax(2) == task().test.targets).double() * 100
    sure = {part: torch.stack([confidence(one, "top") for one in logits]) for part, logits in given.items()}
    means = np.geomspace(costs[0], costs[-1], MEANS).clip(costs[0], costs[-1]).tolist()
    curve = mean_cost_curve(sure["validation"], sure["test"], right, costs, means)
    files: dict[str, nn.Module] = dict(fixed)
    for number, one in enumerate(curve):
        files[f"mean cost {number + 1}"] = with_thresholds(network, one.thresholds)
    for place in range(len(costs)):
        files[f"exit {place + 1}"] = with_thresholds(network, leaving_at(place, len(costs)))
    clocked = timed(files)
    draw(clocked)
    return [
        *answer_rows(right, costs, alone),
        *[clock_row(name, one, files[name], example) for name, one in clocked.items()],
        *[share_row(number, one, means[number]) for number, one in enumerate(curve)],
        *[above_row(clocked, batch) for batch in STREAMS],
    ]


def leaving_at(place: int, answers: int) -> tuple[float, ...]:
    """Return thresholds with which every sample gets the answer at this place."""
    return tuple(ALWAYS if number == place else NEVER for number in range(answers - 1))


def with_thresholds(network: nn.Module, thresholds: Sequence[float]) -> nn.Module:
    """Return a copy of the network that leaves by these thresholds."""
    made = deepcopy(network)
    made.choose.thresholds.copy_(torch.tensor(thresholds))  # type: ignore[operator, union-attr]
    return made.eval()


def timed(networks: dict[str, nn.Module]) -> dict[str, Timed]:
    """Return what the file of each network scores and takes."""
    runtime = runtime_by_name("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for number, (name, network) in enumerate(networks.items()):
            own = Path(folder) / str(number)
            own.mkdir()
            file = runtime.with_paths(COMPACTION).lower(lowered(network, task().example), task().example, own)
            sessions[name] = Running(runtime.load(file, 1))
        scores = {name: score_of(session, task().test) for name, session in sessions.items()}
        taken = {batch: times_of(list(sessions.values()), batch) for batch in STREAMS}
    return {
        name: Timed(scores[name], {batch: float(taken[batch][place]) for batch in STREAMS})
        for place, name in enumerate(sessions)
    }


def score_of(session: Running, data: Data) -> float:
    """Return the accuracy of a file, in %."""
    right = [call(session, images).argmax(1) == labels for images, labels in data.batches(200)]
    return 100 * float(torch.cat(right).double().mean())


def times_of(sessions: Sequence[Running], batch: int) -> np.ndarray:
    """Return the milliseconds of one picture in each file: the median over passes of the mean over the stream."""
    inputs = stream_of(task().test, batch, STREAMS[batch])
    calls = [[partial(call, session, images) for images in inputs] for session in sessions]
    return np.median(streamed(calls, SECONDS, time.process_time).mean(2), 0) / batch


def answer_rows(right: Tensor, costs: Sequence[float], alone: nn.Module) -> list[dict[str, Any]]:
    """Return the anytime curve, and what the last classifier scores when it is trained alone."""
    rows = [
        row(f"MSDNet, answer {place}", one.score, "%", multiply_adds=one.cost)
        for place, one in enumerate(anytime_curve(right, costs), 1)
    ]
    last = answers_of(alone, task().test)[0].argmax(1) == task().test.targets
    return [*rows, row("the same backbone, its last classifier trained alone", 100 * float(last.double().mean()), "%")]


def clock_row(name: str, one: Timed, network: nn.Module, example: Tensor) -> dict[str, Any]:
    """Return a file's score, with its times and the multiply-adds of all its layers."""
    total = profile(network, example).total("multiply_adds").value
    shown = name if name in FIXED else f"MSDNet, file of {name}"
    return row(
        f"{shown}: {one.ms[1]:.3f} ms alone, {one.ms[32]:.3f} ms in 32", one.score, "%", ms=one.ms, multiply_adds=total
    )


def share_row(number: int, one: Spent, mean: float) -> dict[str, Any]:
    """Return which mean cost was asked for, what it came to, and who left where."""
    shares = " / ".join(f"{100 * share:.0f}" for share in one.shares)
    return row(
        f"mean cost {number + 1}: {mean / 1e6:.1f} M multiply-adds; leave at each answer: {shares} %", one.cost / 1e6, "M",
        score=one.score, thresholds=list(one.thresholds),
    )  # fmt: skip


def above_row(clocked: dict[str, Timed], batch: int) -> dict[str, Any]:
    """Return the factor in time over which at least five files in a row are above the fixed networks."""
    found = sorted((one.ms[batch], one.score) for name, one in clocked.items() if name.startswith("mean cost"))
    fixed = sorted((clocked[name].ms[batch], clocked[name].score) for name in FIXED)
    gains = [(ms, score - line_at(fixed, ms)) for ms, score in found if ms >= fixed[0][0]]
    best, stretch = 0.0, list[float]()
    for ms, gain in gains:
        stretch = [*stretch, ms] if gain > 0 else []
        if len(stretch) >= POINTS:
            best = max(best, stretch[-1] / stretch[0])
    return row(
        f"factor in time over which {POINTS} thresholds and more are above the fixed networks, batch {batch}", best, "x", FACTOR,
        "higher", gains=[[round(ms, 4), round(gain, 2)] for ms, gain in gains],
    )  # fmt: skip


def line_at(fixed: Sequence[tuple[float, float]], ms: float) -> float:
    """Return the score of the line through the best fixed networks (ms, score) up to each time, at this time."""
    times, scores = zip(*fixed, strict=True)
    best = np.maximum.accumulate(scores)
    return float(np.interp(np.log(ms), np.log(times), best))


def draw(clocked: dict[str, Timed]) -> None:
    """Draw all files, one picture at a time, for the docs."""
    kinds = {
        "one MSDNet, thresholds for mean costs": "mean cost",
        "the same MSDNet, one answer for all": "exit",
    }
    lines = [
        CostLine(name, tuple(sorted((one.ms[1], one.score) for file, one in clocked.items() if file.startswith(start))))
        for name, start in kinds.items()
    ]
    fixed = tuple(sorted((clocked[name].ms[1], clocked[name].score) for name in FIXED))
    lines.append(CostLine("ResNets of one answer", fixed))
    PICTURE.write_text(
        picture(cost_chart(lines, "milliseconds a picture, one at a time", "accuracy, %")), encoding="utf8"
    )
