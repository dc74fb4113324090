"""Recipes of few bits that no bar is set for: those that were run by python -m bench.recipe_runs."""

from typing import Any

from bench.recipe_runs import made_before, piece, rows_of
from bench.result import row

SEEDS = [0]
NAMES = ("pact_resnet_20", "dorefa_resnet_20", "compact_binary_bi_real_resnet_20", "binary_net_mlp")
FRESH = ("bi_real_resnet_20", "mlp_1024_signed")


def run() -> list[dict[str, Any]]:
    """Every recipe that was run before."""
    return [one for name in NAMES if made_before(name) for one in rows(name, piece(name))]


def rows(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Points lost; of a network that begins with fresh values its accuracy, as there is no plain one to lose to."""
    if found["network"] not in FRESH:
        return rows_of(name, found)
    says = f"{name}, {found['network']}: accuracy ({found['samples']} images)"
    trained = {key: found[key] for key in ("minutes", "trained_on")}
    return [row(says, found["score"], "%", better="higher", **trained), row(f"{name}: file", found["file"], "B")]
