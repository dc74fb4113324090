"""Context mixing: the smallest coder of masks and codes, for planes up to a few million values."""

import numpy as np

from cortado.errors import BadFile
from cortado.file.wire import Cursor, unzigzag, varint, zigzag
from cortado.native.coders import mix_decode, mix_encode
from cortado.parts.forms.states import LAWS, Course

PRESETS = (
    # adaptation limit, strength of the prior (halves), learning rate, first weight (65536 = 1)
    (1023, 6, 250, 6000),
    (1023, 6, 400, 6000),
    (1023, 10, 110, 6000),
    (255, 6, 250, 9000),
    (1023, 16, 200, 3000),
    (1023, 3, 600, 10000),
    (127, 10, 400, 9000),
    (1023, 3, 250, 12000),
)
FEW, SOME, WIDE = 1 << 17, 1 << 20, 10
"""Up to FEW values all presets are tried, up to SOME two; and two for magnitudes of more than WIDE bits."""


def layout(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return a shape as rows, columns, taps and the width of a kernel; one axis is a single row."""
    if len(shape) < 2:
        return 1, int(np.prod(shape)), 1, 1
    taps = int(np.prod(shape[2:]))
    return shape[0], shape[1], taps, shape[-1] if len(shape) > 2 else 1


def likely_stride(plane: np.ndarray) -> int:
    """Return the period of a matrix's columns (of inputs that are images of that width, say), or 0 if it has none.

    It is the lag, from 2, with the highest autocorrelation of the nonzero counts of the columns.
    """
    if plane.ndim != 2 or plane.shape[1] < 8:
        return 0
    filled = np.count_nonzero(plane, axis=0).astype(np.float64)
    filled -= filled.mean()
    lags = range(2, min(plane.shape[1] // 2, 256) + 1)
    return max(lags, key=lambda lag: float(filled[lag:] @ filled[:-lag]))


def header(plan: list[int], preset: int, shift: int) -> bytes:
    """Return what `decode` needs besides shape and `where`."""
    classes, signed, zero, stride, density = plan[4], plan[5], plan[6], plan[7], plan[11]
    flags = preset | (density - 1) << 3 | (stride > 0) << 6 | (shift != 0) << 7
    body = bytes([classes | signed << 6 | zero << 7, flags])
    return body + (varint(stride) if stride else b"") + (varint(zigzag(shift)) if shift else b"")


def make_plan(
    shape: tuple[int, ...], facts: tuple[int, int, int], stride: int, preset: int, density: int,
    course: Course | None = None,
) -> list[int]:  # fmt: skip
    """Return the kernel's parameters, in its order."""
    limit, first, rate, weight = PRESETS[preset]
    machine = (0, 0) if course is None else (course.law.feedback, course.segment)
    return [*layout(shape), *facts, stride, limit, first, rate, density, weight, *machine]


def encode(values: np.ndarray, where: np.ndarray | None, quick: bool = False, course: Course | None = None) -> bytes:
    """Return the shortest code over a few presets (fewer for large planes; `quick`: one).  `values`: int32.

    `course`: the values are codes of dependent quantization, and the grid of each is a context.
    """
    coded = values if where is None else values[where]
    if coded.size == 0 or not coded.any():
        return b""
    least, most = int(coded.min()), int(coded.max())
    # The grids follow from the codes as they are.
    shift = 0 if course else least if least > 0 else (most if most < 0 else 0)
    plane = np.ascontiguousarray(values if shift == 0 else values.astype(np.int64) - shift, dtype=np.int32)
    mask = None if where is None else np.ascontiguousarray(where, dtype=np.uint8)
    facts = (max(abs(least - shift), abs(most - shift)).bit_length(), int(least < shift), int((coded == shift).any()))
    share = max(int(np.count_nonzero(coded != shift)), 1)
    density = min(max((coded.size // share).bit_length(), 1), 8)

    def attempt(preset: int, stride: int) -> bytes:
        plan = make_plan(values.shape, facts, stride, preset, density, course)
        start = header(plan, preset, shift)
        return start if facts[0] == 0 else start + mix_encode(plane, mask, plan)

    large = coded.size > FEW or facts[0] > WIDE
    presets = (0,) if quick or coded.size > SOME else (0, 1) if large else range(len(PRESETS))
    body = min((attempt(preset, 0) for preset in presets), key=len)
    stride = 0 if quick or coded.size > SOME else likely_stride(plane)
    return min(body, attempt(body[1] & 7, stride), key=len) if stride else body


def encode_states(values: np.ndarray, where: np.ndarray | None, course: Course, quick: bool = False) -> bytes:
    """Return the shortest code with the grids of the codes as contexts, and their course before it."""
    body = encode(values, where, quick, course)
    return varint(course.states) + varint(course.segment) + body if body else b""


def decode_states(body: bytes, shape: tuple[int, ...], where: np.ndarray | None) -> np.ndarray:
    """Return the plane of `encode_states`.  Raises BadFile for anything else."""
    if not body:
        return decode(body, shape, where)
    cursor = Cursor(body)
    states, segment = cursor.number(), cursor.number()
    if states not in LAWS or not 1 <= segment < 2**31:
        raise BadFile(
            f"file: no machine of {states} states starts again every {segment} codes. The file is damaged; make it again."
        )
    return decode(cursor.rest(), shape, where, Course(states, segment))


def decode(body: bytes, shape: tuple[int, ...], where: np.ndarray | None, course: Course | None = None) -> np.ndarray:
    """Return the plane (int32, zeros where not coded) of `encode`.  Raises BadFile for anything else."""
    values = np.zeros(shape, dtype=np.int32)
    if not body:
        return values
    cursor = Cursor(body)
    facts, flags = cursor.byte(), cursor.byte()
    stride = cursor.number() if flags & 64 else 0
    shift = unzigzag(cursor.number()) if flags & 128 else 0
    classes = facts & 63
    if classes > 32 or not -(2**31) <= shift < 2**31 or stride > 2**31:
        raise BadFile("file: the head of a mixed stream holds impossible numbers. The file is damaged; make it again.")
    mask = None if where is None else np.ascontiguousarray(where, dtype=np.uint8)
    plan = make_plan(shape, (classes, facts >> 6 & 1, facts >> 7), stride, flags & 7, (flags >> 3 & 7) + 1, course)
    rest = cursor.rest()
    looked = mix_decode(rest, mask, plan, values) if classes and values.size else 0
    if len(rest) > looked or (rest and rest[-1] == 0):
        raise BadFile("file: a mixed stream is longer than its values need. The file is damaged; make it again.")
    if shift:
        wide = values.astype(np.int64) + shift
        if wide.size and (wide.max() >= 2**31 or wide.min() < -(2**31)):
            raise BadFile("file: a mixed value does not fit 32 bits. The file is damaged; make it again.")
        values = (wide if where is None else np.where(where, wide, 0)).astype(np.int32)
    return values
