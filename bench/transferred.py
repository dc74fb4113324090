"""transferred: filters made from fewer against the plain network and thin ones, trained alike; and their time.

bench/transferred_nets.py trains. Times are those of ONNX Runtime on one thread, in processor time, in turns with the plain
network; weights do not matter to them. The published losses are of long trainings on other networks, by 2x, 2x, 4x and 1.6x
fewer weights: Shang et al., 2016; Li et al., 2016; Dieleman et al., 2016; Zhai et al., 2016.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.held_out import task
from bench.result import row
from bench.taught import Run, gain, gain_row
from bench.transferred_nets import NETS, WIDTHS, trained_run, untrained
from cortado.lowering.lower import lowered
from cortado.network.profile.profile import profile
from cortado.running.call import call
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.runtime import Running
from cortado.runtimes.stream import streamed

SEEDS = [0, 1]
PAPERS = {"negate": -0.09, "repeat": 0.07, "rotate": 0.38, "translate": -0.20}
"""Points lost in the papers."""
RIVALS = {
    "negate": "thin, 0.71 as wide",
    "repeat": "thin, 0.71 as wide",
    "translate": "thin, 0.71 as wide",
    "rotate": "thin, half as wide",
    "rotate, rolled (p4)": "thin, half as wide",
}
"""Plain networks of about as many parameters."""
P4 = "rotate, rolled (p4)"
ONCE = ("negate", "repeat")
BARS = {1: 0.8, 2: 0.65}
"""The largest share of the plain network's time, by how many times as wide it is."""
BATCHES, SECONDS, CALLS = (1, 16), 20.0, 20


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return sizes, scores and times."""
    torch.set_num_threads(1)
    runs = {name: [trained_run(name, seed) for seed in seeds] for name in NETS}
    return [*size_rows(), *score_rows(runs), *(one for factor in BARS for one in time_rows(factor))]


def parameters_of(name: str) -> float:
    """Return the number of parameters of a network."""
    return profile(untrained(name, 0), task().example).total("parameters").value


def size_rows() -> list[dict[str, Any]]:
    """Return the parameters and multiply-adds of each network."""
    rows = []
    for name in NETS:
        costs = profile(untrained(name, 0), task().example)
        cost = costs.total("multiply_adds").value
        rows.append(row(f"{name}: parameters", costs.total("parameters").value, "", multiply_adds=cost))
        rows.append(row(f"{name}: multiply-adds", cost / 1e6, "M"))
    return rows


def score_rows(runs: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """Return the scores, the points lost to the plain network, and the points over a thin one."""
    count, plain, rows = len(task().test), runs["plain"], []
    for name, own in runs.items():
        scores = [one["test"] for one in own]
        rows.append(row(f"{name}: accuracy, mean of {len(own)} seeds", mean(scores), "%", scores=scores,
                        minutes=[one["minutes"] for one in own]))  # fmt: skip
    for name in RIVALS:
        lost, around = (-1, 1) * np.array(gain(runs[name], plain, count))
        what = f"{name}: points lost to plain (+- {around:.2f})"
        rows.append(row(what, lost, "points", 1.0 if name == P4 else None, source_value=PAPERS.get(name)))
        over = gain_row(f"{name}: points over {RIVALS[name]}", runs[name], runs[RIVALS[name]], count)
        if name in ONCE:
            over |= {"bar": -0.5, "met": over["value"] >= -0.5}
        rows.append(over)
    rows.append(row(f"{P4}: times fewer parameters", parameters_of("plain") / parameters_of(P4), "x", 3.5, "higher"))
    return rows


def time_rows(factor: int) -> list[dict[str, Any]]:
    """Return the shares of the plain network's time, for networks so many times as wide, and the differences of outputs."""
    widths = [factor * width for width in WIDTHS]
    networks = {name: calibrated(untrained(name, 0, widths)) for name in ("plain", *ONCE, RIVALS["negate"])}
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
