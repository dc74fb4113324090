"""known_data: limits that are kept on validation data which a network knows by heart, and on new data.

    python -m bench.known_data ResNet-56      one network, kept

Published ResNets were trained on all 50,000 training pictures of CIFAR-10, so that 1,000 of these are validation data that
they know; new data are the published test pictures. ResNet-8 of held_out.py was trained on the first 35,000, of which 1,000 are
its validation data here; new data are 2,000 of the last 10,000. Candidates of rising strength are judged as the planner judges
them: the strongest that keeps the limit by one standard error on the validation data, as they are and as noisy copies with the
loss of new data, is scored once on the new data.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from bench.held_out import pictures
from bench.held_out import trained as held_out
from bench.kept import kept
from bench.result import PIECES, row
from cortado.engine.compress import test
from cortado.nets.resnet import resnet_20, resnet_56
from cortado.planner.search.shapes import shaped
from cortado.planner.search.trials import shortfall
from cortado.report.report import Compared, paired_interval
from cortado.task.known_data import judged_as_new
from cortado.task.limits import read_limit
from cortado.task.measure import scores
from cortado.task.task import Data, Task
from cortado.tasks.cifar10 import NORMALISE, read_cifar10

SEEDS = [0]
LIMIT = "score >= -1 %"
KNOWN, NEW = 1_000, 2_000
LADDERS = {
    "rounding": [f"quantize/weights bits={bits}" for bits in (8, 6, 5, 4, 3)],
    "shared values": [f"share/kmeans bits={bits}" for bits in (5, 4, 3, 2)],
    "pruning": [f"prune/weights keep={keep} across=true" for keep in (0.8, 0.7, 0.6, 0.5, 0.4)],
}
NETS = ("ResNet-20", "ResNet-56", "ResNet-8, trained here")


def run() -> list[dict[str, Any]]:
    """Every piece that is kept, the others now."""
    return [one for name in NETS for one in rows_of(name)]


def rows_of(name: str) -> list[dict[str, Any]]:
    """What the strongest candidate loses on new data, chosen on known data as they are, and on copies."""
    found = piece(name)
    losses = ", ".join(f"{found[part]:.3f}" for part in ("known", "copies", "new"))
    rows = [row(f"{name}: loss on known data, on their copies and on new data: {losses}", found["copies"], "nats")]
    for ladder, both in found["ladders"].items():
        for judged, one in both.items():
            bar = 1.0 if judged == "copies" else None
            lost = f"{one['what']}: {one['validation']:.2f} lost there, {one['interval']} on new data"
            rows.append(row(f"{name}, {ladder}, judged on {judged} ({lost}): points lost", one["new"], "points", bar))
    return rows


def piece(name: str) -> dict[str, Any]:
    """One network, kept."""
    return kept(
        f"known_data_{name.lower().replace(', ', '_').replace(' ', '_')}",
        [LIMIT, KNOWN, NEW, LADDERS],
        lambda: measured(name),
        PIECES,
    )


def measured(name: str) -> dict[str, Any]:
    """The strongest candidates of each ladder by both judgements, and what they lose on new data."""
    network, task = MAKERS[name]()
    judged = judged_as_new(network, task)
    parts = {"known data": task.validation, "copies": judged.task.validation}
    print(name, judged.note, flush=True)
    before = {part: scores(network, data, task.metric) for part, data in parts.items()}
    ladders: dict[str, Any] = {}
    for ladder, lines in LADDERS.items():
        best: dict[str, Any] = {}
        for number, line in enumerate(lines):
            if number and not any(lines[number - 1] == one for one, *_ in best.values()):
                break
            made = shaped(network, network, task, line)
            for part, data in parts.items():
                compared = paired_interval(before[part], scores(made, data, task.metric), task.metric.scale)
                over, _ = shortfall(read_limit(LIMIT), compared, 1)
                print(name, line, part, compared.difference, over, flush=True)
                if over <= 0:
                    best[part] = (line, made, compared)
        ladders[ladder] = {part: facts(network, *one, task) for part, one in best.items()}
        print(ladders[ladder], flush=True)
    names = {"known": task.validation, "copies": judged.task.validation, "new": task.test}
    return {**{part: loss(network, data) for part, data in names.items()}, "note": judged.note, "ladders": ladders}


def facts(network: nn.Module, line: str, made: nn.Module, there: Compared, task: Task) -> dict[str, Any]:
    """What a row needs."""
    found = test(network, made, task)
    assert found.low is not None and found.high is not None
    interval = f"95 % interval {-found.high:.2f} to {-found.low:.2f}"
    return {"what": line, "validation": -there.difference, "new": -found.difference, "interval": interval}


def loss(network: nn.Module, data: Data) -> float:
    """Mean cross entropy."""
    with torch.no_grad():
        found = [nn.functional.cross_entropy(network(x), y, reduction="none") for x, y in data.batches(100)]
    return float(torch.cat(found).mean())


def part(images: torch.Tensor, labels: torch.Tensor, begin: int, count: int) -> Data:
    """Pictures of a range."""
    return Data(images[begin : begin + count], labels[begin : begin + count], NORMALISE)


@cache
def published_task() -> Task:
    """Known validation data of the published networks, and the published test pictures."""
    (images, labels), (test_images, test_labels) = read_cifar10()
    return Task(
        part(images, labels, 0, 20_000), part(images, labels, 40_000, KNOWN), part(test_images, test_labels, 0, KNOWN)
    )


def trained_here() -> tuple[nn.Module, Task]:
    """ResNet-8 of held_out.py with pictures that it was trained on as validation data, and held-out ones as test data."""
    images, labels = pictures()
    task = Task(part(images, labels, 0, 20_000), part(images, labels, 30_000, KNOWN), part(images, labels, 40_000, NEW))
    return held_out("ResNet-8", 0), task


MAKERS: dict[str, Callable[[], tuple[nn.Module, Task]]] = {
    "ResNet-20": lambda: (resnet_20(weights=True).eval(), published_task()),
    "ResNet-56": lambda: (resnet_56(weights=True).eval(), published_task()),
    "ResNet-8, trained here": trained_here,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(piece(sys.argv[1]), flush=True)
