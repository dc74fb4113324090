"""Ternary and binary weights, learned by ResNet-20 as it trains on, points lost to the original network.

Each is a recipe that `python -m bench.recipe_runs` runs; the pretrained network is its start and its teacher.
"""

from typing import Any

from bench.recipe_runs import barred

SEEDS = [0]
BARS = {
    "ternary_resnet_20": 0.8,
    "binary_weights_resnet_20": 1.8,
}
"""Points that each may lose."""


def run() -> list[dict[str, Any]]:
    """Every recipe that was run before."""
    return barred(BARS)
