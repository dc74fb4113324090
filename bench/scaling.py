"""scaling: a small ResNet for CIFAR-10 carried to 2 and 4 times its multiply-adds, in three dimensions together or in one.

The factors of depth, width and resolution come from the grid of `cortado scale`, each candidate trained for the same time and
chosen on 5,000 pictures; then every network is trained from scratch for as many epochs, and scored on 10,000 pictures that no
training and no choice has seen. Pieces are kept: `python -m bench.scaling compound 2 0` trains one network with seed 0.
"""

import sys
from statistics import mean
from typing import Any

import torch

from bench.held_out import COPIES, training
from bench.held_out import task as held_out
from bench.kept import kept
from bench.result import PIECES, Clock, row, spread
from cortado.nets.catalog import by_name
from cortado.planner.scaling import DEPTH, RESOLUTION, WIDTH, Scaled, Scaling
from cortado.quantities import count_text
from cortado.task.measure import mean_score
from cortado.training.loop import train

SEEDS = [0, 1]
MAKER, BASE = "cifar_resnet", {"width": 8, "depth": 2, "resolution": 32}
TIMES, EPOCHS, GRID_SECONDS = (2, 4), 12.0, 45.0
GAIN = 0.0
"""Points of compound scaling over the better of width and depth alone."""
ONE = {
    "width only": {DEPTH: 1.0, WIDTH: 2**0.5, RESOLUTION: 1.0},
    "depth only": {DEPTH: 2.0, WIDTH: 1.0, RESOLUTION: 1.0},
}
WAYS = ("compound", *ONE)


def scaling() -> Scaling:
    """Return the base network with its task, and how candidates of the grid are trained."""
    return Scaling(MAKER, dict(BASE), held_out(), training(1.0))


def grid() -> list[Scaled]:
    """Return the candidates of the grid, the best first."""
    settings = [MAKER, BASE, GRID_SECONDS]

    def make() -> dict[str, Any]:
        ranked = scaling().ranked(GRID_SECONDS)
        return {
            "ranked": [[dict(one.factors), one.options, one.multiply_adds, one.epochs, one.score] for one in ranked]
        }

    return [Scaled(*one) for one in kept("scaling_grid", settings, make, PIECES)["ranked"]]


def options_of(way: str, times: int) -> dict[str, Any]:
    """Return the options of the network that is nearest to so many times the multiply-adds of the base."""
    made = scaling()
    factors = grid()[0].factors if way == "compound" else ONE[way]
    target = times * made.cost(made.at(dict.fromkeys(made.names, 1.0)))
    steps = [made.at(factors, step / 20) for step in range(10, 61)]
    return min(steps, key=lambda options: abs(made.cost(options) / target - 1))


def trained(options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the scores of one network, from scratch."""
    settings = [MAKER, options, EPOCHS, seed]

    def make() -> dict[str, Any]:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            network = by_name(MAKER, **options)
        task, clock = held_out(), Clock()
        how = training(EPOCHS * (1 + COPIES))
        train(network, task, how, seed=seed, label=f"scaling {options}, seed {seed}")
        network.eval()
        return {
            "validation": mean_score(network, task.validation, task.metric), "minutes": clock.minutes,
            "test": mean_score(network, task.test, task.metric), "multiply_adds": scaling().cost(options),
        }  # fmt: skip

    return kept("scaling", settings, make, PIECES)


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the grid's choice, and every network's score with its cost."""
    torch.set_num_threads(1)
    best = grid()[0]
    chosen = ", ".join(f"{name} {value:.2f}" for name, value in best.factors.items())
    rows = [
        row(f"grid of {len(grid())}: the best on choice ({chosen}) after {GRID_SECONDS:g} s", best.score, "%"),
        spread(f"base, {count_text(trained(BASE, 0)['multiply_adds'])} multiply-adds",
               [trained(BASE, seed)["test"] for seed in seeds]),
    ]  # fmt: skip
    for times in TIMES:
        scores = {}
        for way in WAYS:
            options = options_of(way, times)
            ones = [trained(options, seed) for seed in seeds]
            scores[way] = mean(one["test"] for one in ones)
            values = ", ".join(f"{name} {value:g}" for name, value in options.items())
            rows.append(
                spread(
                    f"{times}x, {way}: {values}; {count_text(ones[0]['multiply_adds'])}", [one["test"] for one in ones]
                )
            )
        gain = scores["compound"] - max(value for way, value in scores.items() if way != "compound")
        rows.append(row(f"{times}x: compound over the better of width and depth alone", gain, "points", GAIN, "higher"))
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    way, times, seed = (*sys.argv[1:], "", "", "0")[:3]
    print(trained(options_of(way, int(times)) if way in WAYS else BASE, int(seed)))
