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


def decoded_to(path: Path, size: tuple[int, int], resize: int) -> np.ndarray:
    """Decode a picture, resize its shorter side to `resize` and crop the middle: uint8 (height, width, 3).

    Raises BadTask for a file that is no picture, MissingPackage if Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackage(
            f"task: {path} is a picture: pip install -e '.[images]' in Cortado's folder installs Pillow."
        ) from error
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadTask(f"task: {path} cannot be read as a picture ({error}). Remove it, or save it again.") from error
    share = resize / min(picture.size)
    wide, tall = (max(resize, round(side * share)) for side in picture.size)
    height, width = size
    wide, tall = max(wide, width), max(tall, height)
    left, top = (wide - width) // 2, (tall - height) // 2
    smaller = picture.resize((wide, tall), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(smaller.crop((left, top, left + width, top + height)))


def shrunk(body: bytes, path: Path, width: int, height: int) -> np.ndarray:
    """Decode an image of `path` of twice the width and height, and return it as uint8 (height, width, 3), the mean of each 2 x 2.

    Raises what `decoded` raises.
    """
    pixels = decoded(body, path, 2 * width, 2 * height).astype(np.uint16)
    rows = pixels[::2] + pixels[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)
