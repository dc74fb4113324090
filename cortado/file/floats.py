"""Floats without loss: bytes of equal meaning coded together, those that gain; every bit pattern survives."""

from functools import lru_cache

import numpy as np

from cortado.errors import BadFile, BadValue
from cortado.file import mix, rans
from cortado.file.wire import Cursor, varint
from cortado.native.coders import has_kernels

UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}
RAW, CONSTANT, MIX, RANS = range(4)
MIX_LIMIT = 1 << 18
SMALL_BYTES = 1 << 14
DAMAGED = "The file is damaged; make it again."


def item_bytes(dtype: np.dtype) -> int:
    """2, 4 or 8.  Raises BadValue for anything but float16, float32, float64 and bfloat16 as uint16."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f" and dtype.itemsize in UNSIGNED or dtype == np.uint16:
        return dtype.itemsize
    raise BadValue(f"floats: dtype must be float16, float32, float64, or uint16 for bfloat16, got {dtype}.")


def turned(patterns: np.ndarray, left: int) -> np.ndarray:
    """Bit patterns rotated to the left, so that the exponent comes first and the sign last (or back again)."""
    width = 8 * patterns.dtype.itemsize
    unit = patterns.dtype.type
    return patterns << unit(left) | patterns >> unit(width - left)


def encode_bytes(plane: np.ndarray) -> bytes:
    """One byte of every float: constant, entropy-coded or as it is, the shortest.  Without kernels, large ones as they are."""
    counts = np.bincount(plane, minlength=256)
    common = int(counts.argmax())
    if counts[common] == plane.size:
        return bytes([CONSTANT, common])
    raw = bytes([RAW]) + plane.tobytes()
    share = counts[counts > 0] / plane.size
    if -(share * np.log2(share)).sum() > 7.95:
        return raw
    kernels = has_kernels()
    if not kernels and plane.size > rans.PORT_LIMIT:
        return raw
    centred = ((plane.astype(np.int32) - common + 128) & 255) - 128
    if kernels and plane.size <= MIX_LIMIT:
        kind, body = MIX, mix.encode(centred, None, quick=True)
    else:
        kind, body = RANS, rans.encode(centred, 1)
    coded = bytes([kind, common]) + varint(len(body)) + body
    return min(raw, coded, key=len)


def decode_bytes(cursor: Cursor, count: int) -> np.ndarray:
    """The next byte of every float (uint8).  Raises BadFile."""
    kind = cursor.byte()
    if kind == RAW:
        return np.frombuffer(cursor.take(count), dtype=np.uint8)
    common = cursor.byte()
    if kind == CONSTANT:
        return np.full(count, common, dtype=np.uint8)
    if kind not in (MIX, RANS):
        raise BadFile(f"file: bytes of floats are coded in way {kind}, which is unknown. {DAMAGED}")
    body = cursor.take(cursor.number())
    centred = mix.decode(body, (count,), None) if kind == MIX else rans.decode(body, count, 1)
    return ((centred + common) & 255).astype(np.uint8)


def encode_floats(array: np.ndarray) -> bytes:
    """A float array of any shape (or bfloat16 as uint16), bit by bit; the reader needs its dtype and count.

    As many bytes as the array has are the array itself, as many as one item a constant (coded bytes take at least two
    an item, and fewer than the array). Raises BadValue for other dtypes.
    """
    array = np.ascontiguousarray(array)
    return code_once(array.tobytes(), array.dtype) if array.nbytes <= SMALL_BYTES else code_floats(array)


@lru_cache(maxsize=2048)
def code_once(body: bytes, dtype: np.dtype) -> bytes:
    """Code a small array, kept for the next time: most biases and norms are the same after a stage as before it."""
    return code_floats(np.frombuffer(body, dtype))


def code_floats(array: np.ndarray) -> bytes:
    """Code a contiguous array, as `encode_floats` says."""
    size = item_bytes(array.dtype)
    patterns = turned(array.ravel().view(UNSIGNED[size]), 1)
    if patterns.size == 0:
        return b""
    planes = patterns.astype(f">u{size}").view(np.uint8).reshape(-1, size)
    if (planes == planes[0]).all():
        return array.ravel()[:1].tobytes()
    coded = b"".join(encode_bytes(np.ascontiguousarray(planes[:, place])) for place in range(size))
    return min(array.tobytes(), coded, key=len)


def decode_floats(body: bytes, dtype: np.dtype | type, count: int) -> np.ndarray:
    """The `count` floats of `encode_floats`, equal bit by bit.  Raises BadFile when the body is damaged."""
    dtype = np.dtype(dtype)
    size = item_bytes(dtype)
    if len(body) == count * size:
        return np.frombuffer(body, dtype=dtype).copy()
    if len(body) == size:
        return np.repeat(np.frombuffer(body, dtype=dtype), count)
    cursor = Cursor(body)
    planes = np.empty((count, size), dtype=np.uint8)
    for place in range(size):
        planes[:, place] = decode_bytes(cursor, count)
    if cursor.rest():
        raise BadFile(f"file: a stream of floats continues after its {count} values. {DAMAGED}")
    patterns = planes.view(f">u{size}").ravel().astype(UNSIGNED[size])
    return turned(patterns, 8 * size - 1).view(dtype)
