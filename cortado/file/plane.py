"""Plane: code one plane of integers (a mask, codes, codebook ranks) with the coder that makes it smallest."""

from dataclasses import dataclass

import numpy as np

from cortado.errors import BadFile, BadValue
from cortado.file import bits, deep_compression, huffman, mix, rans
from cortado.native.coders import has_kernels
from cortado.parts.forms.states import Course

CODECS = {"bits": 0, "huffman": 1, "rans": 2, "mix": 3, "deep_compression": 4, "states": 5}
QUICK = "quick"
MIX_LIMIT = 4 << 20
ANY_COURSE = Course(8, 1024)
"""For planes without one, if the codec is chosen by hand."""


@dataclass(frozen=True)
class Coded:
    """One coded stream: its codec and bytes; decoding also needs the plane's shape and `where`."""

    codec: int
    body: bytes


def checked_plane(values: np.ndarray, where: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the plane as int32 and the mask as bool, with equal shapes.  Raises BadValue."""
    values = np.asarray(values)
    if values.dtype.kind not in "iub":
        raise BadValue(f"plane: values must be integers, got {values.dtype}. Quantize them first.")
    if values.dtype.itemsize >= 4 and values.size and (values.min() < -(2**31) or values.max() >= 2**31):
        raise BadValue(f"plane: values must fit 32 bits, got {values.min()} to {values.max()}. Use smaller codes.")
    if where is not None:
        where = np.asarray(where, dtype=bool)
        if where.shape != values.shape:
            raise BadValue(f"plane: `where` must have the shape of the values, {values.shape}, got {where.shape}.")
    return np.ascontiguousarray(values, dtype=np.int32), where


def row_length(shape: tuple[int, ...], where: np.ndarray | None) -> int:
    """Return the number of listed values per row; 1 if rows have no meaning."""
    return max(int(np.prod(shape[1:])), 1) if where is None and len(shape) > 1 else 1


def encode_with(values: np.ndarray, where: np.ndarray | None, codec: str, course: Course | None = None) -> Coded:
    """Return the plane coded by one codec."""
    if codec == "states":
        return Coded(CODECS[codec], mix.encode_states(values, where, course or ANY_COURSE))
    if codec == "mix":
        return Coded(CODECS[codec], mix.encode(values, where))
    listed = values.ravel() if where is None else values[where]
    if codec == "bits":
        return Coded(CODECS[codec], bits.encode(listed))
    if codec == "huffman":
        return Coded(CODECS[codec], huffman.encode(listed))
    if codec == "deep_compression":
        return Coded(CODECS[codec], deep_compression.encode(listed, where is not None))
    if codec == "rans":
        return Coded(CODECS[codec], rans.encode(np.ascontiguousarray(listed), row_length(values.shape, where)))
    raise BadValue(f"plane: no codec is called {codec!r}. Known: smallest, {', '.join(CODECS)}.")


def encode_plane(
    values: np.ndarray, where: np.ndarray | None = None, codec: str = "smallest", course: Course | None = None
) -> Coded:
    """Return `values` (32-bit integers, in the shape of the weight) as a coded stream.

    `where` (bool, same shape): code only the places where it is True; the reader must know it. `course`: how the grids of
    the values follow one another, if they are codes of dependent quantization. "smallest" tries all codecs
    and keeps the shortest; above 4 M coded values it skips "mix", which takes seconds per million. "quick" uses one preset
    of the best coder, a few percent longer, which is enough for planning. Without compiled kernels both are the shortest
    of the codecs that NumPy computes in about a second per million. Raises BadValue.
    """
    values, where = checked_plane(values, where)
    count = values.size if where is None else int(np.count_nonzero(where))
    if codec == QUICK and not has_kernels():
        codec = "smallest"
    if codec == QUICK and count <= mix.SOME and course is not None:
        return Coded(CODECS["states"], mix.encode_states(values, where, course, quick=True))
    if codec == QUICK and count <= mix.SOME:
        return Coded(CODECS["mix"], mix.encode(values, where, quick=True))
    if codec != "smallest":
        return encode_with(values, where, "rans" if codec == QUICK else codec, course)
    listed = values.ravel() if where is None else values[where]
    # The sizes of the simple codes are known without writing them.
    tried: list[tuple[int, str, Coded | None]] = [
        (bits.size(listed), "bits", None), (huffman.size(listed), "huffman", None)
    ]  # fmt: skip
    for name in worth_trying(listed, where is not None, course is not None):
        coded = encode_with(values, where, name, course)
        tried.append((len(coded.body), name, coded))
    _, name, best = min(tried, key=lambda one: one[0])
    return best or encode_with(values, where, name, course)


def worth_trying(listed: np.ndarray, inside: bool, coursed: bool) -> list[str]:
    """Return the codecs that may be shorter than bits and huffman and end in time.

    `inside`: values inside a mask; `coursed`: codes whose grids follow one another.
    """
    if has_kernels():
        return ["rans", "states" if coursed else "mix"] if listed.size <= MIX_LIMIT else ["rans"]
    sparse = not inside and 2 * int(np.count_nonzero(listed)) < listed.size
    return ["deep_compression"] * sparse + ["rans"] * (listed.size <= rans.PORT_LIMIT)


def decode_plane(coded: Coded, shape: tuple[int, ...], where: np.ndarray | None = None) -> np.ndarray:
    """Return the plane (int32, of `shape`, zeros where not coded).  Raises BadFile for a damaged stream."""
    if where is not None and where.shape != tuple(shape):
        raise BadValue(f"plane: `where` must have the shape {tuple(shape)}, got {where.shape}.")
    where = None if where is None else np.asarray(where, dtype=bool)
    if coded.codec == CODECS["mix"]:
        return mix.decode(coded.body, tuple(shape), where)
    if coded.codec == CODECS["states"]:
        return mix.decode_states(coded.body, tuple(shape), where)
    count = int(np.prod(shape)) if where is None else int(np.count_nonzero(where))
    if coded.codec == CODECS["bits"]:
        listed = bits.decode(coded.body, count)
    elif coded.codec == CODECS["huffman"]:
        listed = huffman.decode(coded.body, count)
    elif coded.codec == CODECS["deep_compression"]:
        listed = deep_compression.decode(coded.body, count)
    elif coded.codec == CODECS["rans"]:
        listed = rans.decode(coded.body, count, row_length(tuple(shape), where))
    else:
        raise BadFile(f"file: codec {coded.codec} is unknown. The file is damaged or from a newer version.")
    if where is None:
        return listed.reshape(shape)
    values = np.zeros(shape, dtype=np.int32)
    values[where] = listed
    return values
