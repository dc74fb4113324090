"""By layer: the time of each layer in PyTorch, and how close it is to the machine's peak."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from cortado.lowering.lower import dense
from cortado.network.graph.record import Call
from cortado.network.graph.trace import call_with, device_of, trace, undisturbed
from cortado.network.profile.profile import cost_of_calls
from cortado.quantities import count_text, time_text
from cortado.running.brought import accept
from cortado.running.trees import to_device
from cortado.runtimes.peak import Peak, measure_peak
from cortado.runtimes.timing import check_load
from cortado.table import aligned

ROUNDS, WARM_UP = 20, 3
FLOAT_BYTES = 4


@dataclass(frozen=True)
class LayerTime:
    """One layer with all its calls for one batch: its own milliseconds (median), without layers inside it.

    `multiply_adds` and `bytes_moved` (inputs, weights and outputs, each once) are per batch; None is unknown. `roofline` is
    the least time the machine needs for them, as a share of the measured time.
    """

    path: str
    kind: str
    median_ms: float
    multiply_adds: float | None
    bytes_moved: float
    roofline: float | None


@dataclass(frozen=True)
class TimedLayers:
    """All layers, in the order of their first calls; `whole_ms` is the network without hooks."""

    rows: tuple[LayerTime, ...]
    whole_ms: float
    batch: int
    peak: Peak

    def by_kind(self) -> list[LayerTime]:
        """Return the rows summed by kind, the slowest first."""
        kinds: dict[str, list[LayerTime]] = {}
        for row in self.rows:
            kinds.setdefault(row.kind, []).append(row)
        summed = [summed_up(kind, rows, self.peak) for kind, rows in kinds.items()]
        return sorted(summed, key=lambda row: -row.median_ms)

    def text(self) -> str:
        """Return a table of kinds, one of the ten slowest layers, and the measured peaks."""
        total = sum(row.median_ms for row in self.rows)
        slowest = sorted(self.rows, key=lambda row: -row.median_ms)[:10]
        return "\n".join(
            [
                f"time in PyTorch, batch {self.batch}, threads {self.peak.threads}: {time_text(self.whole_ms)}",
                self.peak.text(),
                "",
                timed_table(self.by_kind(), total, "kind"),
                "",
                timed_table(slowest, total, "slowest"),
                "",
                "roofline: the least time that the measured peaks allow for a layer's multiply-adds and bytes, as a share of",
                "the time it took",
            ]
        )


def time_layers(network: nn.Module, example: Any, threads: int = 1, rounds: int = ROUNDS) -> TimedLayers:
    """Time every layer of `network` on `example`, with dense weights.

    Raises BadNetwork if the network fails on the example, BadValue for less than one thread.
    """
    accept(network, "profile")
    check_load("profile", (1,), threads)
    copy = dense(network).requires_grad_(False)
    inputs = to_device(example, device_of(copy))
    traced = trace(copy, inputs)
    peak = measure_peak(threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with undisturbed(copy):
            whole = [whole_ms(copy, inputs) for _ in range(WARM_UP + rounds)][WARM_UP:]
            watch = TimingWatch(copy)
            taken = [watch.round(inputs) for _ in range(WARM_UP + rounds)][WARM_UP:]
    finally:
        torch.set_num_threads(before)
    rows = []
    for layer in dict.fromkeys(call.layer for call in traced.calls):
        calls = [call for call in traced.calls if call.layer is layer]
        median = float(np.median([times.get(id(layer), 0.0) for times in taken]))
        rows.append(timed_row(calls, median, peak))
    return TimedLayers(tuple(rows), float(np.median(whole)), traced.batch, peak)


def timed_row(calls: Sequence[Call], median_ms: float, peak: Peak) -> LayerTime:
    """Return the row of one layer from its calls."""
    layer = calls[0].layer
    cost = cost_of_calls([operator for call in calls for operator in call.operators])
    activations = sum(prod(shape) for call in calls for shape in (*call.inputs, *call.outputs)) * FLOAT_BYTES
    weights = sum(value.numel() * value.element_size() for value in layer.parameters(recurse=False)) * len(calls)
    leaf = not list(layer.children())
    # The inputs and outputs of a module with children do not show what its own operators move.
    known = cost is not None and leaf and median_ms > 0
    roofline = peak.least_ms(cost or 0, activations + weights) / median_ms if known else None
    kind = type(layer).__name__ if leaf else f"{type(layer).__name__}, own operators"
    return LayerTime(calls[0].path or "(network)", kind, median_ms, cost, activations + weights, roofline)


class TimingWatch:
    """Times every module's own work with hooks."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.stack: list[list[float]] = []
        self.taken: dict[int, float] = {}

    def round(self, inputs: Any) -> dict[int, float]:
        """Run once and return the milliseconds of each module, without modules inside it."""
        self.taken = {}
        handles = []
        for layer in self.network.modules():
            handles.append(layer.register_forward_pre_hook(self.enter))
            handles.append(layer.register_forward_hook(self.leave))
        try:
            call_with(self.network, inputs)
        finally:
            for handle in handles:
                handle.remove()
        return self.taken

    def enter(self, layer: nn.Module, given: Any) -> None:
        self.stack.append([time.perf_counter(), 0.0])

    def leave(self, layer: nn.Module, given: Any, output: Any) -> None:
        start, inside = self.stack.pop()
        took = (time.perf_counter() - start) * 1000
        self.taken[id(layer)] = self.taken.get(id(layer), 0.0) + took - inside
        if self.stack:
            self.stack[-1][1] += took


def whole_ms(network: nn.Module, inputs: Any) -> float:
    """Return the milliseconds of one run."""
    start = time.perf_counter()
    call_with(network, inputs)
    return (time.perf_counter() - start) * 1000


def summed_up(kind: str, rows: Sequence[LayerTime], peak: Peak) -> LayerTime:
    """Return the sum of several rows."""
    took = sum(row.median_ms for row in rows)
    costs = [row.multiply_adds for row in rows]
    known = None if None in costs else sum(cost for cost in costs if cost is not None)
    least = [row.roofline * row.median_ms for row in rows if row.roofline is not None]
    roofline = sum(least) / took if len(least) == len(rows) and took else None
    count = f"{len(rows)} layer{'s' if len(rows) > 1 else ''}"
    return LayerTime(count, kind, took, known, sum(row.bytes_moved for row in rows), roofline)


def timed_table(rows: Sequence[LayerTime], total: float, first: str) -> str:
    """Return the rows as aligned lines."""
    lines = [(first, "", "time", "share", "multiply-adds", "roofline")]
    for row in rows:
        cost = "unknown" if row.multiply_adds is None else count_text(row.multiply_adds)
        reached = "" if row.roofline is None else f"{row.roofline:.0%}"
        names = (row.kind, row.path) if first == "kind" else (row.path, row.kind)
        lines.append((*names, time_text(row.median_ms), f"{row.median_ms / total:.0%}" if total else "", cost, reached))
    return aligned(lines, "<<>")
