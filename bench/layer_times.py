"""layer_times: what the table of layer times foretells of cut networks, and what cuts that are ranked by it are worth.

ResNet-56, nothing trained. Channels are cut within shares of the time by the table (`Widths`), within shares of the
multiply-adds, across all groups likewise, and evenly. Each network's time is measured in turns with the original's and held
against the sum over the table, both as shares of the original network's. KL, in nats, is of the validation images (half of
the test images), moments matched.
"""

import math
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.goal_latency import task_of
from bench.kept import kept
from bench.minilm import rank_correlation
from bench.result import row
from cortado.nets.resnet import resnet_56
from cortado.network.view import View
from cortado.planner.search.shapes import CHANNELS, EVENLY, TIMES, Explorer, shaped
from cortado.planner.search.widths import Times, layer_times_in
from cortado.runtimes.runtime import runtime_by_name
from cortado.runtimes.stopwatch import Stopwatch

SEEDS = [0]
RUNTIMES = ("onnxruntime", "openvino")


def run() -> list[dict[str, Any]]:
    """Each runtime; kept when it is done."""
    return [
        one
        for name in RUNTIMES
        for one in rows_of(name, kept(f"layer_times/{name}", [TIMES, CHANNELS, EVENLY], partial(measured, name)))
    ]


def measured(name: str) -> dict[str, Any]:
    """Each cut: predicted and measured share of the time, and nats."""
    task, original = task_of(), resnet_56(weights=True).eval()
    watch, times = Stopwatch(original, task, runtime_by_name(name)), layer_times_in(name)
    explorer, whole = Explorer(original, task, watch), Times(View(original, original, task.example), times).total
    widths = [f"prune/widths keep={keep} runtime={name}" for keep in TIMES]
    found = {}
    for kind, lines in (("time", widths), ("multiply-adds", CHANNELS), ("evenly", EVENLY)):
        for line in lines:
            small = shaped(original, original, task, line)
            shape = explorer.measured(small, line, integers=False)
            assert shape.latency_ms is not None
            describe = Times(View(small, original, task.example), times).total / whole
            found[line] = {
                "kind": kind,
                "predicted": describe,
                "share": shape.latency_ms / watch.original_ms,
                "kl": shape.kl,
            }
            print(name, line, found[line], flush=True)
    return {"cuts": found, "table_ms": whole, "original_ms": watch.original_ms, "shapes": len(times.known)}


def rows_of(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """How far the table is off, and nats at equal time."""
    cuts = list(found["cuts"].values())
    factors = [one["predicted"] / one["share"] for one in cuts]
    ranks = [torch.tensor([one[key] for one in cuts], dtype=torch.float64) for key in ("predicted", "share")]
    off = max(math.exp(abs(math.log(factor))) for factor in factors)
    return [
        row(f"{name}: the table's sum over the original network's time", found["table_ms"] / found["original_ms"], "x"),
        row(f"{name}: share of the time, predicted over measured, the farthest of {len(cuts)} cuts", off, "x", cuts=cuts),
        row(f"{name}: rank correlation of predicted and measured times", rank_correlation(*ranks), ""),
        row(f"{name}: nats of cuts by time over those by multiply-adds in equal measured time", at_equal_time(cuts), "x"),
    ]  # fmt: skip


def at_equal_time(cuts: list[dict[str, Any]]) -> float:
    """The geometric mean over the cuts by time, with nats of the others in a straight line of logarithms."""
    others = sorted((one["share"], math.log(one["kl"])) for one in cuts if one["kind"] == "multiply-adds")
    shares, nats = zip(*others, strict=True)
    ours = [(one["share"], math.log(one["kl"])) for one in cuts if one["kind"] == "time"]
    within = [(share, kl) for share, kl in ours if shares[0] <= share <= shares[-1]]
    return (
        math.exp(float(np.mean([kl - float(np.interp(share, shares, nats)) for share, kl in within])))
        if within
        else math.nan
    )
