"""Weights and activations of 1 bit: ResNet-20 of Bi-Real units trained from fresh values, first and last layer of 8 bits.

Accuracy in %, as there is no original network to lose to; the recipe is run by `python -m bench.recipe_runs`.
"""

from typing import Any

from bench.recipe_runs import made_before, piece
from bench.result import row

SEEDS = [0]
NAME, BAR = "xnor_bi_real_resnet_20", 84.0
"""The recipe, and the accuracy that it should have, in %."""


def run() -> list[dict[str, Any]]:
    """The recipe, if it was run before."""
    if not made_before(NAME):
        return []
    found = piece(NAME)
    what = f"{NAME}: accuracy ({found['samples']} images)"
    return [
        row(what, found["score"], "%", BAR, better="higher", minutes=found["minutes"]),
        row(f"{NAME}: file", found["file"], "B"),
    ]
