"""ensemble: ten networks for MNIST with 1,000 labels, and one network that learns from them on unlabelled pictures.

Each of the ten 784-64-10 networks learns from a bootstrap sample of the 1,000; their probabilities are averaged. The one
network has the same size, and never sees a label: only what the ten say about the 54,000 other training pictures. The gain of the
ten is over their mean member, on the 10,000 test pictures, by which nothing is chosen; the share that is kept is given only
where that gain is beyond its own interval. Means over seeds, each with its own 1,000 labels.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from bench.networks import mnist
from bench.result import row, spread
from cortado.errors import BadValue
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.report.kept_gain import kept_of_scores, together
from cortado.report.report import paired_interval
from cortado.task.measure import scores
from cortado.task.metric import Metric
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


def one_seed(seed: int) -> dict[str, Tensor]:
    """Return how right a mean member, the one and the ten together are on each test picture."""
    task = few(seed)
    ten = [member(task, seed, number) for number in range(MEMBERS)]
    return {
        "member": torch.stack([scores(one, task.test, task.metric) for one in ten]).mean(0),
        "taught": scores(taught(task, seed, ten), task.test, task.metric),
        "together": scores(together(ten, task), task.test, task.metric),
    }


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return accuracies, and the share of the ensemble's gain that one network keeps."""
    torch.set_num_threads(1)
    found = [one_seed(seed) for seed in seeds]
    each = {name: [100 * float(one[name].double().mean()) for one in found] for name in found[0]}
    member, one, ten = (torch.stack([right[name] for right in found]).mean(0) for name in found[0])
    whole = paired_interval(member, ten, 100.0)
    return [
        spread("accuracy of a member", each["member"]),
        spread("accuracy of the ten together", each["together"]),
        spread("accuracy of the one, taught without labels", each["taught"]),
        row("gain of the ten over a member", whole.difference, "points", interval=[whole.low, whole.high]),
        share_row(member, one, ten),
    ]


def share_row(member: Tensor, one: Tensor, ten: Tensor) -> dict[str, Any]:
    """Return the row of the share that is kept; without a value where the ten's gain is within its error."""
    what, facts = "share of the ten's gain that the one keeps", {"source_value": "86 % (slide)"}
    try:
        kept = kept_of_scores(member, one, ten, Metric())
    except BadValue as error:
        return row(what, None, "%", LEAST_SHARE, "higher", why=str(error), **facts)
    interval = [100 * kept.low, 100 * kept.high]
    return row(what, 100 * kept.share, "%", LEAST_SHARE, "higher", interval=interval, **facts)
