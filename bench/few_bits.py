"""Recipes of few bits that no bar is set for: those that were run by python -m bench.recipe_runs."""

from typing import Any

from bench.recipe_runs import made_before, piece, rows_of

SEEDS = [0]
NAMES = ("pact_resnet_20", "dorefa_resnet_20", "compact_binary_bi_real_resnet_20", "binary_net_mlp")


def run() -> list[dict[str, Any]]:
    """Every recipe that was run before."""
    return [one for name in NAMES if made_before(name) for one in rows_of(name, piece(name))]
