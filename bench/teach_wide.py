"""teach_wide: ResNet-8 at twice its width, alone and taught by ResNet-56, by the objective that was best in bench/teach_small.py.

The same pictures, steps and scores as there; about an hour on one core.
"""

from typing import Any

import torch

from bench.held_out import task
from bench.teach_small import WIDE, best_way, compared

SEEDS = [0]


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the score of both, and the gain."""
    torch.set_num_threads(1)
    return compared(WIDE, seeds, best_way(seeds[0]), len(task().test))
