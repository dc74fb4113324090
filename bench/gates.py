"""gates: trained gates on ResNet-20 and ResNet-56, against as fast a network with blocks removed for good.

Networks and trainings: bench/gated.py. All that is compared learned for as many steps from the same teacher. Times are those
of ONNX Runtime on one thread, in processor time, over test pictures in turns; each batch size in the faster form. No
weight was tuned. The static rival was chosen before any training: about as fast with gates that skip 40 %.
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from math import isfinite
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.gated import SUBJECTS, TARGET, Subject, made, run_named
from bench.result import row
from bench.taught import Run, gain_row, run_of
from cortado.lowering.lower import lowered
from cortado.running.call import call
from cortado.runtimes.gate_times import break_even, forced, skipped_share
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.runtime import Running
from cortado.runtimes.stream import stream_of, streamed

SEEDS = [0]
BATCHES = {1: 200, 32: 24}
"""Batch sizes, and how many different batches are timed."""
SECONDS = 60.0
AS_FAST = 1.03
"""Times the rival's time that still count as equal."""
Times = dict[str, np.ndarray]
"""Milliseconds of the mean call in each pass, by variant."""


def run() -> list[dict[str, Any]]:
    """Return the rows of both networks."""
    torch.set_num_threads(1)
    return [one for subject in SUBJECTS for one in rows_of_subject(subject)]


def rows_of_subject(subject: Subject) -> list[dict[str, Any]]:
    """Return shares, scores and times of one network."""
    name, task = subject.name, subject.task()
    count = len(task.test)
    before = run_of("gates", [name, "as it came"], task, subject.network)
    gated, shorter = run_named(subject), run_named(subject, subject.removed)
    skipped = skipped_share(made(subject), [inputs for inputs, _ in task.test.batches(200)])
    removed = f"{subject.removed} blocks removed"
    rows = [
        row(f"{name}: share of gated blocks that samples skip, test pictures", 100 * skipped, "%", target=100 - 100 * TARGET),
        *(row(f"{name}: accuracy, {what}", one["test"], "%", minutes=one["minutes"]) for what, one in
          {"as it came": before, "with gates": gated, removed: shorter}.items()),
        gain_row(f"{name}: gates over as it came", [gated], [before], count),
        gain_row(f"{name}: {removed} over as it came", [shorter], [before], count),
    ]  # fmt: skip
    for batch, times in times_of(subject).items():
        rows += clock_rows(subject, batch, times, skipped, gated, shorter, count)
    return rows


def clock_rows(
    subject: Subject, batch: int, times: Times, skipped: float, gated: Run, shorter: Run, count: int
) -> list[dict[str, Any]]:
    """Return the times at one batch size, the break-even, and who wins."""
    form = min(Onnxruntime.path_forms, key=lambda one: float(np.median(times[f"gates, {one}"])))
    names = {"gates": f"gates, {form}", "open": f"open, {form}", "shut": f"shut, {form}"}
    plain, own, opened, shut, rival = (
        float(np.median(times[one])) for one in ("plain", *names.values(), "removed")
    )  # fmt: skip
    what, point = f"{subject.name}, batch {batch}", break_even(plain, opened, shut)
    removed = f"{subject.removed} blocks removed"
    rows = [
        ratio(f"{what}: as it came against itself (A/A)", times["plain"], times["again"]),
        row(f"{what}: as it came", plain, "ms"),
        row(f"{what}: with gates, {form}", own, "ms", all_open=opened, all_shut=shut),
        row(f"{what}: {removed}", rival, "ms"),
        row(
            f"{what}: share to skip from which gates pay, {form}",
            100 * point if isfinite(point) else None,
            "%",
            skipped=100 * skipped,
            pays=own < plain,
        ),
        ratio(f"{what}: gates, times faster than as it came", times["plain"], times[names["gates"]]),
        ratio(f"{what}: {removed}, times faster than as it came", times["plain"], times["removed"]),
    ]
    wins = gain_row(f"{what}: gates over {removed}, at {own / rival:.2f} of its time", [gated], [shorter], count, 0.0)
    wins["met"] = wins["met"] and own <= AS_FAST * rival
    return [*rows, wins | {"winner": winner(wins, own / rival)}]


def winner(found: Mapping[str, Any], slower: float) -> str:
    """Return in words who is better, the gates or the network with blocks removed."""
    low, high = found["interval"]
    score = "gates score better" if low > 0 else "blocks removed score better" if high < 0 else "neither scores better"
    clock = "gates are slower" if slower > AS_FAST else "gates are faster" if slower < 1 / AS_FAST else "as fast"
    return f"{score}; {clock}"


def ratio(what: str, slow: np.ndarray, fast: np.ndarray) -> dict[str, Any]:
    """Return how many times faster, the median over passes with its quartiles."""
    low, middle, high = (float(one) for one in np.quantile(slow / fast, (0.25, 0.5, 0.75)))
    return row(
        f"{what} (quartiles {low:.3g} to {high:.3g})",
        middle,
        "x",
        better="higher",
        low=low,
        high=high,
        passes=len(slow),
    )


def times_of(subject: Subject) -> dict[int, Times]:
    """Return the times of all variants in turns, by batch size."""
    gated, task = made(subject), subject.task()
    original = subject.network()
    variants: dict[str, tuple[nn.Module, str]] = {
        "plain": (original, ""),
        "again": (original, ""),
        "removed": (made(subject, subject.removed), ""),
    }
    for form in Onnxruntime.path_forms:
        networks = {"gates": gated, "open": forced(gated, True), "shut": forced(gated, False)}
        variants |= {f"{what}, {form}": (network, form) for what, network in networks.items()}
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for number, (network, form) in enumerate(variants.values()):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            low = lowered(network, task.example)
            files.append(Onnxruntime().with_paths(form).lower(low, task.example, folder))
        found = {}
        for batch, most in BATCHES.items():
            inputs = stream_of(task.test, batch, most)
            calls = [
                [partial(call, running, given) for given in inputs]
                for running in [Running(Onnxruntime().load(file, 1)) for file in files]
            ]
            taken = streamed(calls, SECONDS, process_time).mean(2)
            found[batch] = {name: taken[:, place] for place, name in enumerate(variants)}
    return found
