"""Byte arrays stored as .npy.xz: NumPy's format, compressed by LZMA."""

import lzma
import math
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from cortado.errors import BadTask

MOST_BYTES = 1 << 30


def read_npy_xz(path: Path) -> np.ndarray:
    """Return the uint8 array in a .npy.xz file.

    Raises BadTask if it is truncated, altered, not uint8, has trailing data, or exceeds 1 GiB.
    """
    try:
        with lzma.open(path, "rb") as stream:
            version = npy_format.read_magic(stream)
            read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, by_column, kind = read_header(stream)
            size_bytes = math.prod(shape)
            if kind != np.uint8 or by_column or min(shape, default=0) < 0 or size_bytes > MOST_BYTES:
                raise BadTask(
                    f"task: {path} must contain rows of uint8, at most {MOST_BYTES} bytes, got {kind} of shape {shape}."
                )
            body = stream.read(size_bytes + 1)
    except (EOFError, OSError, ValueError, lzma.LZMAError) as error:
        if isinstance(error, BadTask):
            raise
        raise BadTask(f"task: {path} cannot be read as .npy.xz: {error}. Download the file again.") from error
    if len(body) != size_bytes:
        raise BadTask(f"task: {path} must have {size_bytes} bytes after its header, got {len(body)} or more.")
    return np.frombuffer(body, np.uint8).reshape(shape)
