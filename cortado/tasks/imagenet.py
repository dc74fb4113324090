"""ImageNet: a sample of labelled images in one file, enough to calibrate and test, not to train."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadTask, MissingPackage
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.pictures import decoded
from cortado.tasks.pixels import Normalise, checked_images
from cortado.tasks.store import find, folders

FILE = "imagenet_sample.npz"
CLASSES, SIDE = 1000, 256
NORMALISE = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CALIBRATION_SHARE, VALIDATION_SHARE = 0.2, 0.2


@dataclass(frozen=True)
class Picture:
    """Converts uint8 (N, 3, 256, 256), red first, to network inputs: a centre crop of side `crop`, resized to `size`.

    Then normalises with `normalise`, whose means and deviations are in the order of the input channels: blue first if
    `blue_first`.
    """

    crop: int = 224
    size: int = 224
    normalise: Normalise = NORMALISE
    blue_first: bool = False

    def __call__(self, pixels: Tensor) -> Tensor:
        edge = (pixels.shape[-1] - self.crop) // 2
        middle = pixels[..., edge : edge + self.crop, edge : edge + self.crop]
        given = middle.flip(1) if self.blue_first else middle
        if self.size != self.crop:
            given = functional.interpolate(given.float(), (self.size, self.size), mode="bilinear", antialias=True)
        return self.normalise(given)


def read_pictures(path: Path) -> tuple[Tensor, Tensor]:
    """Return images uint8 (N, 3, 256, 256) and labels (N,) of an .npz: concatenated images `body`, their `ends`, labels `y`.

    Raises BadTask if the file is truncated or of another kind, MissingPackage if Pillow is not installed.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            body, ends, labels = stored["body"].tobytes(), [int(end) for end in stored["ends"]], stored["y"]
        images = np.empty((len(ends), 3, SIDE, SIDE), np.uint8)
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            images[number] = decoded(body[start:end], path, SIDE, SIDE).transpose(2, 0, 1)
    except (BadTask, MissingPackage):
        raise
    except (EOFError, KeyError, OSError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadTask(f"task: {path} cannot be read as images: {error}. Download the file again.") from error
    return checked_images("the ImageNet sample", images, labels, (3, SIDE, SIDE), CLASSES)


def task(seed: int = 0, picture: Picture | None = None) -> Task:
    """Return the task: a fifth of the images to calibrate (and as `train`), a fifth to validate, the rest to test.

    `seed` draws the split. Inputs are as `picture` makes them; in memory they stay uint8. Raises BadTask if
    imagenet/imagenet_sample.npz is in none of the data folders or unreadable.
    """
    path = find("imagenet", (FILE,))
    if path is None:
        looked = " and ".join(str(folder) for folder in folders("imagenet"))
        raise BadTask(
            f"task: imagenet needs the file {FILE}. Looked in {looked}. Put it there; it cannot be downloaded."
        )
    images, labels = read_pictures(path)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    ends = [round(len(labels) * share) for share in (CALIBRATION_SHARE, CALIBRATION_SHARE + VALIDATION_SHARE)]
    parts = order.tensor_split(ends)
    data = [Data(images[part], labels[part], picture or Picture()) for part in parts]
    return Task(train=data[0], validation=data[1], test=data[2], calibration=data[0], seed=seed, name="imagenet")
