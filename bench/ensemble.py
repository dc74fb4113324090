"""ensemble: ten networks for MNIST with 1,000 labels, and one network that learns from them on unlabelled pictures.

Each of the ten 784-64-10 networks learns from a bootstrap sample of the 1,000; their probabilities are averaged. The one
network has the same size, and never sees a label: only what the ten say about the 54,000 other training pictures. The gain of the
ten is over their mean member, on the 10,000 test pictures, by which nothing is chosen; the share that is kept is given only
where that gain is beyond its own interval. Means over seeds, each with its own 1,000 labels.
"""

import dataclasses
import math
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.codistillation import probabilities, spread
from bench.networks import mnist
from bench.result import row
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.task.task import Data, Task
from cortado.training.loop import train
from cortado.training.training import Training

SEEDS = [0, 1, 2]
MEMBERS, LABELS, HIDDEN = 10, 1000, 64
STEPS, BATCH = 500, 64
LEARNS_FROM = [{"logits": {"data": "unlabelled", "temperature": 2.0}}]
EPOCHS = 6.0
LEAST_SHARE = 70


def small(seed: int) -> nn.Module:
    """Return the network with fresh weights."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def few(seed: int) -> Task:
    """Return MNIST with 1,000 labels, and the other training pictures without any."""
    task = mnist(seed)
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))
    rest = task.train.pick(order[LABELS:])
    unlabelled = Data(rest.inputs, None, rest.prepare)
    return dataclasses.replace(
        task, train=task.train.pick(order[:LABELS]), unlabelled=unlabelled, batch=BATCH, seed=seed
    )


def member(task: Task, seed: int, number: int) -> nn.Module:
    """Return a network trained on a bootstrap sample of the labelled pictures."""
    generator = torch.Generator().manual_seed(1000 * seed + number)
    drawn = torch.randint(0, LABELS, (LABELS,), generator=generator)
    network = small(100 * seed + number)
    training = Training(epochs=STEPS * BATCH / LABELS, lr=1e-3, precision="float32")
    train(network, dataclasses.replace(task, train=task.train.pick(drawn)), training, seed=seed)
    return network.eval()


def taught(task: Task, seed: int, teachers: list[nn.Module]) -> nn.Module:
    """Return one network that has learned from the ten, without labels."""
    network = small(7000 + seed)
    training = Training(epochs=EPOCHS, lr=1e-3, precision="float32")
    Finetune(training, objectives=LEARNS_FROM, teacher=teachers).apply(View(network, network, task.example), task)
    return network.eval()


def one_seed(seed: int) -> dict[str, float]:
    """Return the accuracies of a mean member, the ten together and the one, and the standard error of the ten's gain."""
    task = few(seed)
    (labels,) = [targets for _, targets in task.test.batches(len(task.test))]
    ten = [member(task, seed, number) for number in range(MEMBERS)]
    each = torch.stack([probabilities(one, task.test) for one in ten])
    members = (each.argmax(2) == labels).double()
    together = (each.mean(0).argmax(1) == labels).double()
    gains = together - members.mean(0)
    one = probabilities(taught(task, seed, ten), task.test)
    return {
        "member": percent(members),
        "together": percent(together),
        "taught": percent((one.argmax(1) == labels).double()),
        "gain_error": 100 * float(gains.std()) / math.sqrt(len(labels)),
        "disagreement": 100 * float(functional.kl_div(one.clamp(min=1e-9).log(), each.mean(0), reduction="batchmean")),
    }


def percent(right: Tensor) -> float:
    """Return the share that is right, in %."""
    return 100 * float(right.mean())


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return accuracies, and the share of the ensemble's gain that one network keeps."""
    torch.set_num_threads(1)
    found = [one_seed(seed) for seed in seeds]
    whole = [one["together"] - one["member"] for one in found]
    kept = [one["taught"] - one["member"] for one in found]
    error = math.sqrt(sum(one["gain_error"] ** 2 for one in found)) / len(found)
    clear = mean(whole) > 1.96 * error
    return [
        spread("accuracy of a member", [one["member"] for one in found]),
        spread("accuracy of the ten together", [one["together"] for one in found]),
        spread("accuracy of the one, taught without labels", [one["taught"] for one in found]),
        row("gain of the ten over a member", mean(whole), "points", values=whole, error=error),
        row(
            "share of the ten's gain that the one keeps", 100 * sum(kept) / sum(whole) if clear else None, "%", LEAST_SHARE,
            "higher", source_value="86 % (slide)", values=[100 * a / b for a, b in zip(kept, whole, strict=True)],
        ),
    ]  # fmt: skip
