"""planner_vs_search_56: as planner_vs_search, on ResNet-56."""

from typing import Any

from bench.planner_vs_search import Contest

SEEDS = [0]


def run() -> list[dict[str, Any]]:
    """Each piece is kept when it is done."""
    return Contest("ResNet-56").rows()
