"""Labelled images stored as sheets: an .npz of labels and of PNG or WebP images that tile many small ones."""

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from cortado.errors import BadTask, MissingPackage
from cortado.tasks.pictures import decoded

TALL, WIDE, SIDE = 25, 40, 32
SHEET_IMAGES = TALL * WIDE
MOST_SHEETS = 100


def read_sheets(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 (N, 3, 32, 32) and labels (N,) of an .npz with `y` and `sheet0`, `sheet1` ...

    A sheet is a lossless image of 40 x 25 tiles, row by row. Raises BadTask if the file is truncated or of another kind,
    and MissingPackage if Pillow is not installed.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            labels = stored["y"]
            count = math.ceil(len(labels) / SHEET_IMAGES)
            if labels.ndim != 1 or labels.dtype.kind not in "iu" or count > MOST_SHEETS:
                raise BadTask(f"task: labels of {path} must be a row of integers, got shape {labels.shape}.")
            images = np.empty((count * SHEET_IMAGES, 3, SIDE, SIDE), np.uint8)
            for sheet in range(count):
                rows = images[sheet * SHEET_IMAGES : (sheet + 1) * SHEET_IMAGES].reshape(TALL, WIDE, 3, SIDE, SIDE)
                picture = decoded(stored[f"sheet{sheet}"].tobytes(), path, WIDE * SIDE, TALL * SIDE)
                rows[:] = picture.reshape(TALL, SIDE, WIDE, SIDE, 3).transpose(0, 2, 4, 1, 3)
    except (BadTask, MissingPackage):
        raise
    except (EOFError, KeyError, OSError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadTask(f"task: {path} cannot be read as sheets of images: {error}. Download the file again.") from error
    return images[: len(labels)], labels
