"""IDX, the format of MNIST: a big-endian header of dimensions, then unsigned bytes; optionally gzipped."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cortado.errors import BadTask

UNSIGNED_BYTE = 0x08
MOST_AXES = 4
MOST_BYTES = 1 << 30


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array in an IDX file, gzipped if the name ends in .gz.

    Raises BadTask if it is not IDX of unsigned bytes, is truncated, has trailing data, or exceeds 1 GiB.
    """
    try:
        with path.open("rb") as stream:
            return _read(gzip.GzipFile(fileobj=stream) if path.suffix == ".gz" else stream, path)
    except (EOFError, OSError, zlib.error) as error:
        raise BadTask(f"task: {path} cannot be read as IDX: {error}. Download the file again.") from error


def _read(stream: BinaryIO | gzip.GzipFile, path: Path) -> np.ndarray:
    """Read the header, then exactly the bytes it announces."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != UNSIGNED_BYTE or not 1 <= magic[3] <= MOST_AXES:
        raise BadTask(
            f"task: {path} is not IDX of unsigned bytes: it must start with 00 00 08 and 1 to {MOST_AXES} axes, "
            f"got {magic.hex(' ') or 'nothing'}. Download the file again."
        )
    axes = magic[3]
    header = stream.read(4 * axes)
    if len(header) < 4 * axes:
        raise BadTask(f"task: {path} is truncated in its header. Download the file again.")
    shape = struct.unpack(f">{axes}I", header)
    size_bytes = math.prod(shape)
    if size_bytes > MOST_BYTES:
        raise BadTask(f"task: {path} announces {size_bytes} bytes, more than the {MOST_BYTES} allowed.")
    body = stream.read(size_bytes)
    if len(body) < size_bytes:
        raise BadTask(f"task: {path} is truncated: {len(body)} of {size_bytes} bytes. Download the file again.")
    if stream.read(1):
        raise BadTask(f"task: {path} has data after the {size_bytes} bytes of its header. Download the file again.")
    return np.frombuffer(body, np.uint8).reshape(shape)
