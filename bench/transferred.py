"""transferred: filters made from fewer against the plain network and thin ones, trained alike.

bench/transferred_nets.py trains; bench/transferred_costs.py has sizes and times.  The published losses are of long trainings
on other networks, by 2x, 2x, 4x and 1.6x fewer weights: Shang et al., 2016; Li et al., 2016; Dieleman et al., 2016; Zhai et
al., 2016.
"""

from statistics import mean
from typing import Any

import numpy as np
import torch

from bench.held_out import task
from bench.result import row
from bench.taught import Run, gain, gain_row
from bench.transferred_nets import NETS, trained_run, untrained
from cortado.network.profile.profile import profile

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


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the scores."""
    torch.set_num_threads(1)
    return score_rows({name: [trained_run(name, seed) for seed in seeds] for name in NETS})


def parameters_of(name: str) -> float:
    """Return the number of parameters of a network."""
    return profile(untrained(name, 0), task().example).total("parameters").value


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
