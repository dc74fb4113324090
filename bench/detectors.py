"""detectors: the detectors of BCCD that benches need, trained once and kept as float16 weights."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.kept import kept
from bench.result import PIECES
from cortado.boxes.detections import Detections
from cortado.nets.catalog import by_name
from cortado.task.average_precision import COCO_OVERLAPS, ONE_OVERLAP, mean_average_precision
from cortado.task.outputs.detected import Detected
from cortado.task.point_loss import PointLoss
from cortado.task.task import Task
from cortado.tasks.bccd import CLASSES, HEIGHT, WIDTH
from cortado.tasks.bccd import task as cells
from cortado.training.loop import train
from cortado.training.training import Training

BACKBONE = 0.5
"""The backbone is trained already, so its learning rate is this share of that of the heads."""
RATE = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How one detector is trained."""

    network: str
    width: float
    epochs: float
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.network}_{self.width:g}"


RECIPES = {
    "lite": Recipe("ssdlite_mobilenet_v1", 0.25, 105),
    "dense": Recipe("ssd_mobilenet_v1", 0.25, 60),
    "large": Recipe("ssdlite_mobilenet_v1", 0.75, 45),
    "yolo": Recipe("yolo", 8, 120),
}


def groups(network: nn.Module) -> Iterable[dict[str, Any]]:
    """The optimizer's groups: a pretrained backbone, and the rest."""
    backbone = getattr(network, "backbone", None)
    of_backbone = set() if backbone is None else {id(one) for one in backbone.parameters()}
    parameters = list(network.parameters())
    return [
        {"params": [one for one in parameters if id(one) in of_backbone], "lr": RATE * BACKBONE},
        {"params": [one for one in parameters if id(one) not in of_backbone]},
    ]


def fresh(which: str) -> nn.Module:
    """An untrained detector, on a pretrained backbone if it has one."""
    recipe = RECIPES[which]
    backbone = {} if which == "yolo" else {"backbone": True}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        return by_name(recipe.network, width=recipe.width, **backbone)


def task_of(which: str, score: str = "mAP") -> Task:
    """The task of a detector: boxes from anchors, or from points for the one without."""
    whole = cells(score=score)
    if which != "yolo":
        return whole
    grid = fresh(which).grid(HEIGHT, WIDTH)
    found = Detections(grid)
    metric = mean_average_precision(CLASSES, found, COCO_OVERLAPS if score == "mAP" else ONE_OVERLAP)
    return replace(whole, loss=PointLoss(grid), metric=metric, outputs=Detected(found))


def made(which: str, data: Task) -> dict[str, Any]:
    """Train a detector, keep its weights, and return the minutes of the processor that this took."""
    network, recipe, start = fresh(which), RECIPES[which], time.process_time()
    how = Training(
        epochs=recipe.epochs, lr=RATE, optimizer="adamw", decay=1e-4, warmup=0.02, clip=5.0, precision="bfloat16"
    )
    trained_by = train(network, data, how, groups=groups, seed=recipe.seed)
    minutes = (time.process_time() - start) / 60
    weights = {name: value.half().numpy() for name, value in network.state_dict().items() if value.is_floating_point()}
    np.savez_compressed(weights_file(which), **weights)
    return {"minutes": minutes, "loss": float(trained_by)}


def weights_file(which: str) -> Path:
    return PIECES / f"detect_bccd_{which}.npz"


def minutes_of(which: str) -> float:
    """Minutes of the processor that the training took; trains first if that was not done."""
    recipe = RECIPES[which]
    return float(
        kept(f"detect_bccd_{which}", [repr(recipe), RATE, BACKBONE], lambda: made(which, task_of(which)), PIECES)[
            "minutes"
        ]
    )


def trained(which: str) -> nn.Module:
    """A trained detector, from its kept weights."""
    minutes_of(which)
    recipe = RECIPES[which]
    return by_name(recipe.network, width=recipe.width, weights=weights_file(which)).eval()
