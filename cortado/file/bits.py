"""Bit packing: each value minus the least, in as many bits as the widest needs."""

import numpy as np

from cortado.errors import BadFile
from cortado.file.wire import Cursor, unzigzag, varint, zigzag

INT32 = range(-(2**31), 2**31)


def pack(values: np.ndarray, width: int) -> bytes:
    """`values` (0 or more, int64) in `width` bits each, most significant bit first."""
    if width == 0 or values.size == 0:
        return b""
    places = np.arange(width - 1, -1, -1, dtype=np.int64)
    parts = []
    for start in range(0, values.size, 1 << 16):
        part = values[start : start + (1 << 16)].astype(np.int64)
        parts.append(np.packbits(((part[:, None] >> places) & 1).astype(np.uint8).ravel()))
    return b"".join(part.tobytes() for part in parts)


def unpack(body: bytes, count: int, width: int) -> np.ndarray:
    """`count` values (int64) written by `pack`.  Raises BadFile when `body` has another length."""
    if len(body) != (count * width + 7) // 8:
        raise BadFile(
            f"file: {count} packed values of {width} bits need {(count * width + 7) // 8} bytes, got {len(body)}. "
            "The file is damaged; make it again."
        )
    values = np.zeros(count, dtype=np.int64)
    data = np.frombuffer(body, dtype=np.uint8)
    for start in range(0, count, 1 << 16):
        size = min(1 << 16, count - start)
        chunk = data[start * width // 8 : (start + size) * width // 8 + 1]
        bits = np.unpackbits(chunk, count=size * width).reshape(size, width)
        for place in range(width):
            values[start : start + size] = values[start : start + size] * 2 + bits[:, place]
    return values


def encode(values: np.ndarray) -> bytes:
    """A list of integers: least value, width, then the packed differences."""
    if values.size == 0 or not values.any():
        return b""
    least = int(values.min())
    width = (int(values.max()) - least).bit_length()
    return varint(zigzag(least)) + bytes([width]) + pack(values.astype(np.int64) - least, width)


def size(values: np.ndarray) -> int:
    """Return how many bytes `encode` takes."""
    if not values.any():
        return 0
    least = int(values.min())
    width = (int(values.max()) - least).bit_length()
    return len(varint(zigzag(least))) + 1 + (values.size * width + 7) // 8


def decode_wide(body: bytes, count: int) -> np.ndarray:
    """The `count` integers (int64, within 34 bits) of `encode`.  Raises BadFile on anything else."""
    if not body:
        return np.zeros(count, dtype=np.int64)
    cursor = Cursor(body)
    least, width = unzigzag(cursor.number()), cursor.byte()
    if width > 32 or abs(least) >= 2**33:
        raise BadFile(f"file: packed values of {width} bits from {least}; at most 32 can be. The file is damaged.")
    return unpack(cursor.rest(), count, width) + least


def decode(body: bytes, count: int) -> np.ndarray:
    """The `count` integers (int32) of `encode`.  Raises BadFile on anything else."""
    values = decode_wide(body, count)
    if count and (int(values.min()) not in INT32 or int(values.max()) not in INT32):
        raise BadFile("file: a packed value does not fit 32 bits. The file is damaged; make it again.")
    return values.astype(np.int32)
