"""sparse_language: half of the block weights of SmolLM2-135M become zero, and nothing is trained.

Second moments and weights of outputs are those of bench/language.py: validation text alone. Scores are perplexities of the first
8 windows of 1,024 tokens of the test text, in bfloat16, against the original's. The embedding stays. Pieces are kept:
`python -m bench.sparse_language NAME` makes one.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.kept import kept
from bench.language import SEEN, SLOPES, learned_from, log, original_score, score, statistics, working_copy
from bench.result import PIECES, Clock, row
from bench.smollm2 import smollm2
from cortado.methods.method import Method
from cortado.methods.prune.second_order import PruneSecondOrder
from cortado.methods.prune.weights import PruneWeights
from cortado.network.view import View

BLOCKS = "layers*"
SHARE = 0.5


def second_order(**knobs: Any) -> PruneSecondOrder:
    return PruneSecondOrder(images=SEEN, slopes=SLOPES, precision="bfloat16", where=BLOCKS, **knobs)


WAYS: dict[str, Callable[[], Method]] = {
    "magnitude": partial(PruneWeights, keep=SHARE, where=BLOCKS),
    "magnitude times activation (Wanda)": partial(PruneWeights, keep=SHARE, by="activation", where=BLOCKS),
    "second order, each layer alike (SparseGPT)": partial(second_order, keep=SHARE, across=False),
    "second order, across layers": partial(second_order, keep=SHARE),
    "second order, 2 of each 4": partial(second_order, pattern="2:4"),
}


def found(name: str) -> dict[str, Any]:
    """The kept score of one way, or its score now."""

    def make() -> dict[str, Any]:
        original, method, clock = smollm2(), WAYS[name](), Clock()
        view = View(working_copy(original), original, learned_from().example)
        if isinstance(method, PruneSecondOrder):
            method.cut(view, learned_from(), statistics()[0])
        else:
            method.apply(view, learned_from())
        minutes = clock.minutes
        log(name, minutes, *view.notes)
        values = [one.dense() for one in view.weights(BLOCKS)]
        zeros = sum(int((one == 0).sum()) for one in values) / sum(one.numel() for one in values)
        return {"perplexity": score(view.network.eval()), "minutes": minutes, "zeros": zeros, "notes": view.notes}

    return kept("sparse_language", [name, SHARE, SEEN, SLOPES], make, PIECES)


def run() -> list[dict[str, Any]]:
    """All rows."""
    own, rows = original_score(), []
    for name in WAYS:
        one = found(name)
        says = f"half of the block weights zero, {name}: times the original's perplexity"
        rows.append(row(says, one["perplexity"] / own, "x", perplexity=one["perplexity"], zeros=one["zeros"]))
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or WAYS:
        log(found(wanted))
