"""A tiny SSDLite on two levels, and made-up pictures of bright and dark rectangles on which it learns in seconds."""

import torch
from torch import nn

import cortado
from cortado.boxes.anchors import Anchors
from cortado.boxes.detections import Detections
from cortado.boxes.targets import padded_boxes
from cortado.nets.backbone import FeatureStages
from cortado.nets.ssd import Ssd
from cortado.task.average_precision import mean_average_precision
from cortado.task.box_loss import BoxLoss
from cortado.task.move_boxes import MoveBoxes
from cortado.training.loop import train
from cortado.training.training import Training

SIDE = 32
ANCHORS = Anchors((4, 8), ((8.0,), (14.0,)), (1.0, 2.0, 0.5))
GRID = ANCHORS.on(SIDE, SIDE)


def stage(into, out):
    return nn.Sequential(nn.Conv2d(into, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def network(lite=True):
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Ssd(FeatureStages([nn.Sequential(stage(3, 12), stage(12, 16)), stage(16, 24)]), 2, ANCHORS, lite)


def scenes(count, seed):
    """Pictures with none to two rectangles: bright ones are tall, dark ones wide."""
    generator = torch.Generator().manual_seed(seed)
    pictures, rows = 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=generator), []
    for picture in pictures:
        found = []
        for _ in range(int(torch.randint(0, 3, (), generator=generator))):
            x, y, dark = (int(torch.randint(*ends, (), generator=generator)) for ends in ((1, 19), (1, 19), (0, 2)))
            wide, high = (12, 8) if dark else (8, 12)
            picture[:, y : y + high, x : x + wide] = 1.0 - 2 * dark
            found.append([float(x), float(y), float(x + wide), float(y + high), float(dark)])
        rows.append(found)
    return pictures, padded_boxes(rows, SIDE, SIDE, 2, most=4)


def task():
    found = Detections(GRID)
    return cortado.Task(
        cortado.Data(*scenes(96, 1), vary=MoveBoxes(zoom=(0.9, 1.2))), scenes(48, 2), scenes(48, 3), loss=BoxLoss(GRID),
        metric=mean_average_precision(2, found, (0.5,)), outputs=cortado.Detected(found), batch=16, name="blocks", device="cpu",
    )  # fmt: skip


def trained(epochs=12):
    made = network()
    train(made, task(), Training(epochs=epochs, lr=1e-2))
    return made.eval()
