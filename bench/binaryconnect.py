"""BinaryConnect on MNIST: an MLP of three hidden layers of 1,024 units, every weight a sign.  Test error in %.

The recipes are run by `python -m bench.recipe_runs`; the original network is the same one trained in floats.
"""

from typing import Any

from bench.recipe_runs import made_before, piece, rows_of
from bench.result import row

SEEDS = [0]
BARS = {"binary_connect_mlp": 1.4, "binary_connect_stochastic_mlp": 1.4}
"""Test error that each may have, in %."""


def run() -> list[dict[str, Any]]:
    """Every recipe that was run before."""
    rows = []
    for name, bar in BARS.items():
        if made_before(name):
            found = piece(name)
            rows += [row(f"{name}: test error", 100 - found["score"], "%", bar), *rows_of(name, found)]
    return rows
