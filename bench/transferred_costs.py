"""transferred_costs: parameters, multiply-adds and time of networks with filters made from fewer, against the plain network.

Nothing is trained, as weights do not matter here; bench/transferred.py has the accuracies.  Times are those of ONNX Runtime on
one thread, in processor time, in turns with the plain network.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.held_out import task
from bench.result import row
from bench.transferred_nets import NETS, WIDTHS, untrained
from cortado.lowering.lower import lowered
from cortado.network.profile.profile import profile
from cortado.running.call import call
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.runtime import Running
from cortado.runtimes.stream import streamed

ONCE, THIN = ("negate", "repeat"), "thin, 0.71 as wide"
BARS = {1: 0.8, 2: 0.65}
"""The largest share of the plain network's time, by how many times as wide it is."""
BATCHES, SECONDS, CALLS = (1, 16), 20.0, 20


def run() -> list[dict[str, Any]]:
    """Return sizes and times."""
    torch.set_num_threads(1)
    return [*size_rows(), *(one for factor in BARS for one in time_rows(factor))]


def size_rows() -> list[dict[str, Any]]:
    """Return the parameters and multiply-adds of each network."""
    rows = []
    for name in NETS:
        costs = profile(untrained(name, 0), task().example)
        cost = costs.total("multiply_adds").value
        rows.append(row(f"{name}: parameters", costs.total("parameters").value, "", multiply_adds=cost))
        rows.append(row(f"{name}: multiply-adds", cost / 1e6, "M"))
    return rows


def time_rows(factor: int) -> list[dict[str, Any]]:
    """Return the shares of the plain network's time, for networks so many times as wide, and the differences of outputs."""
    widths = [factor * width for width in WIDTHS]
    networks = {name: calibrated(untrained(name, 0, widths)) for name in ("plain", *ONCE, THIN)}
    what, rows = f"{widths[0]}..{widths[-1]}", []
    with tempfile.TemporaryDirectory() as scratch:
        sessions = {}
        for name, network in networks.items():
            folder = Path(scratch) / name.replace(" ", "_")
            folder.mkdir()
            file = Onnxruntime().lower(lowered(network, task().example), task().example, folder)
            sessions[name] = Running(Onnxruntime().load(file, 1))
        for batch in BATCHES:
            pictures, _ = next(iter(task().validation.batches(batch)))
            calls = [[partial(call, session, pictures)] * CALLS for session in (*sessions.values(), sessions["plain"])]
            taken = streamed(calls, SECONDS, time.process_time).mean(2)
            again = float(np.median(taken[:, -1] / taken[:, 0]))
            rows.append(row(f"{what}, batch {batch}: plain against itself (A/A)", again, "x"))
            for place, name in enumerate(networks):
                share = float(np.median(taken[:, place] / taken[:, 0]))
                bar = BARS[factor] if name in ONCE else None
                if name != "plain":
                    rows.append(row(f"{what}, batch {batch}: {name}, share of plain's time", share, "x", bar))
        for name in ONCE:
            with torch.no_grad():
                wanted = networks[name](pictures)
            far = float((call(sessions[name], pictures) - wanted).abs().max() / wanted.abs().max())
            rows.append(row(f"{what}: {name}, largest difference of the file's outputs, of the largest", far, "", 1e-4))
    return rows


def calibrated(network: nn.Module) -> nn.Module:
    """Return the network in eval mode, after its norms have seen some pictures."""
    with torch.no_grad():
        for pictures, _ in task().validation.first(512).batches(128):
            network.train()(pictures)
    return network.eval()
