"""The entropy coders' kernels: compiled where there is a compiler, else their twins, with the same bytes."""

import ctypes

import numpy as np

from cortado.native import twin_mix
from cortado.native.build import load
from cortado.native.tables import logistic_tables


def pointer(array: np.ndarray | None) -> ctypes.c_void_p | None:
    """The address of a contiguous array, for ctypes."""
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def mix_encode(values: np.ndarray, where: np.ndarray | None, plan: list[int]) -> bytes:
    """Context-mixed code of `values` (int32, contiguous; `where` uint8 of the same size) under `plan`."""
    library, _ = load()
    if library is None:
        return twin_mix.encode(values, where, plan)
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
        room *= 2


def mix_decode(body: bytes, where: np.ndarray | None, plan: list[int], values: np.ndarray) -> int:
    """Fill `values` (int32 zeros) from `body`; how many bytes were looked at (up to 8 beyond the end)."""
    library, _ = load()
    if library is None:
        return twin_mix.decode(body, where, plan, values)
    squash, stretch = logistic_tables()
    facts = np.array(plan, dtype=np.int64)
    data = np.frombuffer(body, dtype=np.uint8)
    library.mix_decode.restype = ctypes.c_int64
    return int(
        library.mix_decode(
            pointer(data), ctypes.c_int64(data.size), pointer(where), pointer(facts), pointer(squash),
            pointer(stretch), pointer(values),
        )  # fmt: skip
    )
