"""taxonomies: one network for two sets of labels against one network for each, and coarse labels where fine ones are few.

MNIST: one set says the digit, the other only whether it is even; LeNet-5, 10,000 pictures of each set, 400 steps of 64 for
all networks. Training sums the probabilities of what a label contains, and each set is scored on its own labels (Lambert et
al., 2020, MSeg), on the 10,000 test pictures.
"""

from statistics import mean
from typing import Any

import torch

from bench.kept import kept
from bench.result import PIECES, row, spread
from cortado.nets.lenet import lenet_5
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.sources import Source, Sources
from cortado.task.task import Task
from cortado.task.taxonomy import Taxonomy
from cortado.tasks.mnist import task as mnist
from cortado.training.loop import train
from cortado.training.training import Training

SEEDS = [0, 1, 2]
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EVEN, ODD = DIGITS[::2], DIGITS[1::2]
NUMBERS = Taxonomy(DIGITS, {"digits": DIGITS, "parity": {"even": EVEN, "odd": ODD}})
COUNT, FEW, STEPS, BATCH = 10_000, 200, 400, 64
WITHIN, HELPS = 1.0, 1.0
WAYS = {
    "both": (COUNT, COUNT), "digits alone": (COUNT, 0), "parity alone": (0, COUNT),
    "few digits": (FEW, 0), "few digits and parity": (FEW, 2 * COUNT),
}  # fmt: skip
"""Pictures with digits as labels, and others with parity."""


def sources(digits: int, parity: int, seed: int) -> Sources:
    """Return so many pictures with digits as labels and so many others with parity; both sets fill half of the batches."""
    whole = mnist().train
    drawn = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    parts = {}
    for name, chosen in (("digits", drawn[:digits]), ("parity", drawn[COUNT : COUNT + parity])):
        if len(chosen):
            data = whole.pick(chosen)
            labels = torch.as_tensor(data.targets) % (2 if name == "parity" else len(DIGITS))
            times = max(1, parity // digits) if name == "digits" and digits else 1
            parts[name] = Source(Data(data.inputs, labels, data.prepare), NUMBERS.loss_on(name), 1.0, times)
    return Sources(parts)


def digits_run(way: str, seed: int) -> dict[str, float]:
    """Return the kept accuracies in % of a network on both sets: "digits", "parity"."""

    def make() -> dict[str, float]:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            network = lenet_5()
        whole, made = mnist(), sources(*WAYS[way], seed)
        metric = NUMBERS.accuracy("digits")
        task = Task(made.data, whole.validation, whole.test, loss=made.loss, metric=metric, seed=seed, batch=BATCH)
        how = Training(epochs=STEPS * BATCH / len(made.data), lr=2e-3, warmup=0.1, precision="bfloat16")
        train(network, task, how, seed=seed)
        parity = Data(whole.test.inputs, torch.as_tensor(whole.test.targets) % 2, whole.test.prepare)
        asked = {"digits": whole.test, "parity": parity}
        found = {name: mean_score(network, one, NUMBERS.accuracy(name)) for name, one in asked.items()}
        print(way, seed, found, flush=True)
        return found

    return kept("taxonomies", [way, WAYS[way], seed, STEPS, BATCH, COUNT], make, PIECES)


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return scores of one network for both sets and of one for each, and what coarse labels add to few fine ones."""
    torch.set_num_threads(1)
    digits = {way: [digits_run(way, seed) for seed in seeds] for way in WAYS}
    gap = differences(digits, "both", "digits alone", "digits")
    more = differences(digits, "both", "parity alone", "parity")
    few = differences(digits, "few digits and parity", "few digits", "digits")
    return [
        *(average(f"MNIST, {way}: accuracy on digits", found, "digits") for way, found in digits.items()),
        *(average(f"MNIST, {way}: accuracy on parity", found, "parity") for way, found in digits.items()),
        spread("MNIST: one network over one for digits, on digits", gap, "points", -WITHIN, "higher"),
        spread("MNIST: one network over one for parity, on parity", more, "points", -WITHIN, "higher"),
        spread(f"MNIST: parity of {2 * COUNT:,} others over {FEW} digits alone", few, "points", HELPS, "higher"),
    ]


def average(what: str, found: list[dict[str, float]], key: str) -> dict[str, Any]:
    """Return the row of a score's mean over seeds."""
    return row(what, mean(one[key] for one in found), "%")


def differences(found: dict[str, list[dict[str, float]]], one: str, other: str, key: str) -> list[float]:
    """Return the points that one way has over another, seed by seed."""
    return [a[key] - b[key] for a, b in zip(found[one], found[other], strict=True)]
