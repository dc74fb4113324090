"""Decode compressed images inside a data file, checking their size first."""

import io
from pathlib import Path

import numpy as np

from cortado.errors import BadTask, MissingPackage

FORMATS = ("PNG", "WEBP", "JPEG")


def decoded(body: bytes, path: Path, width: int, height: int, mode: str = "RGB") -> np.ndarray:
    """Decode an image of `path` to uint8 (height, width, 3), or (height, width) in mode "L".

    Raises BadTask if it has another size or mode, MissingPackage if Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackage(
            f"task: {path} contains images: pip install -e '.[images]' in Cortado's folder installs Pillow."
        ) from error
    with Image.open(io.BytesIO(body), formats=FORMATS) as picture:
        if picture.size != (width, height) or picture.mode != mode:
            raise BadTask(
                f"task: an image of {path} must be {width} x {height} {mode}, "
                f"got {picture.width} x {picture.height} {picture.mode}."
            )
        return np.asarray(picture)


def shrunk(body: bytes, path: Path, width: int, height: int) -> np.ndarray:
    """Decode an image of `path` of twice the width and height, and return it as uint8 (height, width, 3), the mean of each 2 x 2.

    Raises what `decoded` raises.
    """
    pixels = decoded(body, path, 2 * width, 2 * height).astype(np.uint16)
    rows = pixels[::2] + pixels[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)
