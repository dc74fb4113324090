"""CamVid: street scenes from a car, segmented pixel by pixel."""

import io
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from cortado.errors import BadTask, MissingPackage
from cortado.task.data import Data
from cortado.task.overlap import mean_iou
from cortado.task.task import Task
from cortado.tasks.pixels import Normalise
from cortado.tasks.store import find, folders

HEIGHT, WIDTH = 360, 480
CLASSES = 11
"""Plus a void class, which does not count."""
BLUE_FIRST = Normalise(
    mean=(108.380 / 255, 106.603 / 255, 103.648 / 255),
    std=(77.641, 78.894, 77.789),
)  # fmt: skip
"""As in the published ESPNet: blue first, and unscaled deviations."""
CALIBRATION_STEP, VALIDATION_STEP, TEST_STEP = 8, 6, 4


def prepared(pixels: Tensor) -> Tensor:
    """Convert uint8 (N, 3, 360, 480), red first, to normalised float32, blue first."""
    return BLUE_FIRST(pixels.flip(1))


class Frames(Dataset[Any]):
    """Frames and masks, kept in memory as compressed images and decoded on access.

    An item is uint8 (3, 360, 480), red first, and int64 (360, 480) of classes, 11 for void.
    """

    def __init__(self, path: Path) -> None:
        """Raises BadTask if the file is truncated or of another kind."""
        self.path = path
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                self.frames = packed(stored["frames"], stored["frame_ends"])
                self.masks = packed(stored["masks"], stored["mask_ends"])
        except (EOFError, KeyError, OSError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise BadTask(f"task: {path} cannot be read as frames: {error}. Download the file again.") from error
        if len(self.frames) != len(self.masks):
            raise BadTask(f"task: {path} needs one mask per frame, got {len(self.frames)} and {len(self.masks)}.")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        frame = decoded_frame(self.frames[number], self.path, "RGB").transpose(2, 0, 1)
        mask = decoded_frame(self.masks[number], self.path, "L")
        return torch.from_numpy(np.ascontiguousarray(frame)), torch.from_numpy(mask.astype(np.int64))


class Every(Dataset[Any]):
    """Every `step`-th item of a Dataset."""

    def __init__(self, items: Frames, step: int) -> None:
        self.items, self.numbers = items, range(0, len(items), step)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Any:
        return self.items[self.numbers[number]]


def packed(body: np.ndarray, ends: np.ndarray) -> list[bytes]:
    """Return the bytes of each image."""
    raw, stops = body.tobytes(), [int(end) for end in ends]
    return [raw[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def decoded_frame(body: bytes, path: Path, mode: str) -> np.ndarray:
    """Decode one image to uint8 (360, 480, 3) or (360, 480).  Its size is checked before a pixel is decoded."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackage(
            f"task: {path} contains images: pip install -e '.[images]' in Cortado's folder installs Pillow."
        ) from error
    try:
        with Image.open(io.BytesIO(body), formats=("PNG", "WEBP")) as picture:
            if picture.size != (WIDTH, HEIGHT) or picture.mode != mode:
                raise BadTask(
                    f"task: an image of {path} must be {WIDTH} x {HEIGHT} {mode}, "
                    f"got {picture.width} x {picture.height} {picture.mode}."
                )
            return np.asarray(picture)
    except OSError as error:
        raise BadTask(f"task: an image of {path} cannot be decoded: {error}. Download the file again.") from error


loss = partial(functional.cross_entropy, ignore_index=CLASSES)
"""The cross-entropy, averaged over all pixels that are not void."""


def task(seed: int = 0) -> Task:
    """Return the task: train on 367 frames, calibrate on every 8th of them, validate on 17, test on every 4th test frame.

    Inputs are (N, 3, 360, 480), blue first, as in the published ESPNet; the score is the mean IoU over 11 classes of all
    images together. Raises BadTask if camvid/camvid_train.npz, _val or _test is in none of the data folders or
    unreadable.
    """
    train, val, test = (Frames(file_of(part)) for part in ("train", "val", "test"))
    return Task(
        train=Data(train, prepare=prepared),
        validation=Data(Every(val, VALIDATION_STEP), prepare=prepared),
        test=Data(Every(test, TEST_STEP), prepare=prepared),
        calibration=Data(Every(train, CALIBRATION_STEP), prepare=prepared),
        loss=loss, metric=mean_iou(CLASSES), seed=seed, batch=8, name="camvid",
    )  # fmt: skip


def file_of(part: str) -> Path:
    """Return the path of a part's frames.  Raises BadTask."""
    path = find("camvid", (f"camvid_{part}.npz",))
    if path is None:
        looked = " and ".join(str(folder) for folder in folders("camvid"))
        raise BadTask(
            f"task: camvid needs the file camvid_{part}.npz. Looked in {looked}. Put it there; it cannot be downloaded."
        )
    return path
