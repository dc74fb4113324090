"""The entropy coders' kernels; where there are none the Python ports, with identical bytes and several hundred times slower."""

import ctypes

import numpy as np

from cortado.native import python_mix as python_mix
from cortado.native import python_rans as python_rans
from cortado.native.build import load_kernels
from cortado.native.tables import logistic_tables


def has_kernels() -> bool:
    """Return whether the coders run as compiled kernels."""
    return load_kernels()[0] is not None


def pointer(array: np.ndarray | None) -> ctypes.c_void_p | None:
    """Return the address of a contiguous array, for ctypes."""
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def check_memory(answer: int) -> None:
    """Raise MemoryError when a kernel reports that it ran out of memory."""
    if answer == -2:
        raise MemoryError("native: the coder's tables do not fit into memory.")


def mix_encode(values: np.ndarray, where: np.ndarray | None, plan: list[int]) -> bytes:
    """Return the context-mixed code of `values` (int32, contiguous; `where` uint8 of the same size) under `plan`."""
    library, _ = load_kernels()
    if library is None:
        return python_mix.encode(values, where, plan)
    squash, stretch = logistic_tables()
    facts = np.array(plan, dtype=np.int64)
    room = 64 + 6 * values.size
    while True:
        out = np.empty(room, dtype=np.uint8)
        library.mix_encode.restype = ctypes.c_int64
        size = library.mix_encode(
            pointer(values), pointer(where), pointer(facts), pointer(squash), pointer(stretch),
            pointer(out), ctypes.c_int64(room),
        )  # fmt: skip
        if size >= 0:
            return out[:size].tobytes()
        check_memory(size)
        room *= 2


def mix_decode(body: bytes, where: np.ndarray | None, plan: list[int], values: np.ndarray) -> int:
    """Fill `values` (int32 zeros) from `body`; return the number of bytes read (up to 8 beyond the end)."""
    library, _ = load_kernels()
    if library is None:
        return python_mix.decode(body, where, plan, values)
    squash, stretch = logistic_tables()
    facts = np.array(plan, dtype=np.int64)
    data = np.frombuffer(body, dtype=np.uint8)
    library.mix_decode.restype = ctypes.c_int64
    looked = library.mix_decode(
        pointer(data), ctypes.c_int64(data.size), pointer(where), pointer(facts), pointer(squash), pointer(stretch),
        pointer(values),
    )  # fmt: skip
    check_memory(looked)
    return int(looked)


def rans_survey(values: np.ndarray, plan: list[int]) -> np.ndarray:
    """Return the counts of each step of the two running means: 4096 and 4096 in one array."""
    library, _ = load_kernels()
    if library is None:
        return python_rans.survey(values, plan)
    counts = np.zeros(8192, dtype=np.int64)
    facts = np.array(plan, dtype=np.int64)
    library.rans_survey(pointer(values), pointer(facts), pointer(counts))
    return counts


def rans_tokens(
    values: np.ndarray, plan: list[int], across: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bytes]:
    """Return contexts and tokens in coding order (uint8), counts of the pairs (64, 16), and extra bits as bytes."""
    library, _ = load_kernels()
    if library is None:
        return python_rans.tokens(values, plan, across, below)
    facts = np.array(plan, dtype=np.int64)
    contexts, found = np.empty(values.size, dtype=np.uint8), np.empty(values.size, dtype=np.uint8)
    counts = np.zeros((4, 64, 16), dtype=np.int64)
    raw = np.empty(8 if plan[2] else 5 * values.size + 8, dtype=np.uint8)
    library.rans_tokens.restype = ctypes.c_int64
    size = library.rans_tokens(
        pointer(values), pointer(facts), pointer(across), pointer(below), pointer(contexts), pointer(found),
        pointer(counts), pointer(raw),
    )  # fmt: skip
    return contexts, found, counts.sum(0), raw[:size].tobytes()


def rans_encode(
    contexts: np.ndarray, found: np.ndarray, streams: int, renumber: np.ndarray, tables: np.ndarray
) -> bytes:
    """Return the coded words; `renumber` maps the 64 finest contexts to rows of `tables` (starts, widths)."""
    library, _ = load_kernels()
    if library is None:
        return python_rans.encode(contexts, found, streams, renumber, tables)
    room = 2 * found.size + 16
    out = np.empty(room, dtype=np.uint8)
    library.rans_encode.restype = ctypes.c_int64
    size = library.rans_encode(
        pointer(contexts), pointer(found), ctypes.c_int64(found.size), ctypes.c_int64(streams), pointer(renumber),
        pointer(tables), pointer(out), ctypes.c_int64(room),
    )  # fmt: skip
    return out[room - size :].tobytes()


def rans_decode(
    words: bytes, raw: bytes, plan: list[int], across: np.ndarray, below: np.ndarray, tables: np.ndarray,
    values: np.ndarray,
) -> bool:  # fmt: skip
    """Fill `values`; return False when the streams do not end in the encoder's final state."""
    library, _ = load_kernels()
    if library is None:
        return python_rans.decode(words, raw, plan, across, below, tables, values)
    facts = np.array(plan, dtype=np.int64)
    body, beside = np.frombuffer(words, dtype=np.uint8), np.frombuffer(raw, dtype=np.uint8)
    library.rans_decode.restype = ctypes.c_int64
    ended = library.rans_decode(
        pointer(body), ctypes.c_int64(body.size), pointer(beside), ctypes.c_int64(beside.size), pointer(facts),
        pointer(across), pointer(below), pointer(tables), pointer(values),
    )  # fmt: skip
    return int(ended) == 0
