"""Learned step size: ResNet-20 with weights and activations of 4 and of 2 bits, points lost to the original network.

Each is a recipe that `python -m bench.recipe_runs` runs; the pretrained network is its start and its teacher.
"""

from typing import Any

from bench.recipe_runs import barred

SEEDS = [0]
BARS = {
    "lsq_4_bits_resnet_20": 0.3,
    "lsq_2_bits_resnet_20": 1.5,
}
"""Points that each may lose."""


def run() -> list[dict[str, Any]]:
    """Every recipe that was run before."""
    return barred(BARS)
