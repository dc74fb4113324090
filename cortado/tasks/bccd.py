"""BCCD: blood cells in pictures from a microscope, with boxes: red cells, white cells and platelets."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cortado.boxes.anchors import ANCHORS, Anchors
from cortado.boxes.detections import Detections
from cortado.boxes.targets import padded_boxes
from cortado.errors import BadTask, MissingPackage
from cortado.task.average_precision import COCO_OVERLAPS, ONE_OVERLAP, mean_average_precision
from cortado.task.box_loss import BoxLoss
from cortado.task.data import Data
from cortado.task.move_boxes import MoveBoxes
from cortado.task.outputs.detected import Detected
from cortado.task.outputs.found_boxes import FoundBoxes, found_detections
from cortado.task.task import Task
from cortado.tasks.augment import vary_colours
from cortado.tasks.pictures import shrunk
from cortado.tasks.store import find, folders

HEIGHT, WIDTH = 240, 320
"""Of the pictures here, half of the published ones."""
NAMES = ("red cell", "white cell", "platelet")
CLASSES = len(NAMES)
SCORES = ("mAP", "mAP50")
MOST = 64
"""Rows for boxes; no picture has more than 30."""


def scaled_cells(pixels: Tensor) -> Tensor:
    """Convert uint8 (N, 3, 240, 320) to float32 in -1..1, as MobileNets take it."""
    return (pixels.float() - 128) / 128


def read_cells(path: Path) -> tuple[Tensor, Tensor]:
    """Return pictures uint8 (N, 3, 240, 320) and padded boxes (N, 64, 5) of a file.

    Raises BadTask if it is truncated or of another kind, MissingPackage without Pillow.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            raw, ends = stored["body"].tobytes(), [int(end) for end in stored["ends"]]
            rows = np.split(stored["boxes"].astype(np.float32), stored["box_ends"][:-1])
        bodies = [raw[low:high] for low, high in zip([0, *ends[:-1]], ends, strict=True)]
        pictures = np.stack([shrunk(body, path, WIDTH, HEIGHT) for body in bodies])
    except (BadTask, MissingPackage):
        raise
    except (EOFError, KeyError, OSError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadTask(
            f"task: {path} cannot be read as pictures with boxes: {error}. Download the file again."
        ) from error
    if len(rows) != len(pictures):
        raise BadTask(f"task: {path} needs the boxes of each picture, got {len(pictures)} pictures and {len(rows)}.")
    halved = [np.concatenate([one[:, :4] / 2, one[:, 4:]], 1) if one.ndim == 2 else one for one in rows]
    boxes = padded_boxes(halved, HEIGHT, WIDTH, CLASSES, MOST)
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))), boxes


def task(
    seed: int = 0, score: str = "mAP", anchors: Anchors = ANCHORS, augment: bool = True, whole: bool = False
) -> Task:
    """Return the task: train on 205 pictures, validate on 87, test on 72, all of 320 x 240 pixels.

    Inputs are (N, 3, 240, 320) in -1..1, targets padded boxes (N, 64, 5) with class -1 in rows without one. The `score` is
    "mAP" over overlaps of 0.5 to 0.95, or "mAP50" at 0.5. `anchors` are those of the network, whose maps have a place for each
    whole stride. `whole`: for a `Detector`, which returns boxes; it can be scored and exported, but not trained. Raises BadTask
    if detection/bccd_train.npz, _val or _test is in none of the data folders or unreadable.
    """
    if score not in SCORES:
        raise BadTask(f"task: the score of bccd must be one of {', '.join(SCORES)}, got {score!r}.")
    train, validation, test = (read_cells(cells_file(part)) for part in ("train", "val", "test"))
    grid = anchors.on(HEIGHT, WIDTH)
    found = Detections(grid)
    varied = MoveBoxes(flip=True, zoom=(0.9, 1.7)) if augment else None
    overlaps = COCO_OVERLAPS if score == "mAP" else ONE_OVERLAP
    return Task(
        train=Data(*train, scaled_cells, vary_colours if augment else None, vary=varied),
        validation=Data(*validation, scaled_cells), test=Data(*test, scaled_cells),
        loss=BoxLoss(grid), metric=mean_average_precision(CLASSES, found_detections if whole else found, overlaps),
        outputs=FoundBoxes() if whole else Detected(found), seed=seed, batch=8, name="bccd",
    )  # fmt: skip


def cells_file(part: str) -> Path:
    """Return the path of a part's pictures.  Raises BadTask."""
    path = find("detection", (f"bccd_{part}.npz",))
    if path is None:
        looked = " and ".join(str(folder) for folder in folders("detection"))
        raise BadTask(
            f"task: bccd needs the file bccd_{part}.npz. Looked in {looked}. Put it there; it cannot be downloaded."
        )
    return path
