"""Speed of the entropy coders in million values a second, one thread (best of several), and over two threads.

One thread is timed by the processor time it took, which other programs on the machine disturb little; the two threads
by the clock on the wall, which they do disturb.

16.8 M values a plane: 90 % zeros with 15 levels, dense codes of 4 bits, dense codes of 8 bits, all Laplacian.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from bench.result import row
from cortado.file.plane import Coded, decode_plane, encode_plane
from cortado.native.build import native_state

SIDE = 4096
ENCODE_BAR, DECODE_BAR = 30.0, 60.0
MIX_ROWS = 256  # of the plane that the mixed coder is timed on


def laplace(generator: np.random.Generator, scale: float, most: int) -> np.ndarray:
    """Dense codes in -most..most."""
    drawn = generator.laplace(scale=scale, size=(SIDE, SIDE))
    return np.clip(np.rint(drawn), -most, most).astype(np.int32)


def speed_planes() -> dict[str, np.ndarray]:
    """The three planes."""
    generator = np.random.default_rng(0)
    size = np.clip(np.ceil(generator.exponential(2.0, (SIDE, SIDE))), 1, 7) * generator.choice([-1, 1], (SIDE, SIDE))
    sparse = np.where(generator.random((SIDE, SIDE)) < 0.1, size, 0).astype(np.int32)
    four, eight = laplace(generator, 1.7, 7), laplace(generator, 14, 127)
    return {"90 % zeros, 15 levels": sparse, "dense 4 bits": four, "dense 8 bits": eight}


def rate(action: Callable[[], object], count: int, repeats: int, clock: Callable[[], float]) -> float:
    """Million values a second, best of `repeats`."""
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        action()
        best = min(best, clock() - start)
    return count / best / 1e6


def entropy_bytes(plane: np.ndarray) -> float:
    """The entropy of single values, in bytes."""
    counts = np.bincount((plane - plane.min()).ravel())
    share = counts[counts > 0] / plane.size
    return float(-plane.size * (share * np.log2(share)).sum() / 8)


def timed(
    name: str, plane: np.ndarray, codec: str, repeats: int, bars: tuple[float | None, float | None]
) -> list[dict]:
    """Rows of one coder on one plane."""
    coded = encode_plane(plane, codec=codec)
    if not np.array_equal(decode_plane(coded, plane.shape), plane):
        raise AssertionError("coder_speed: a plane did not come back")
    encode = rate(lambda: encode_plane(plane, codec=codec), plane.size, repeats, time.thread_time)
    decode = rate(lambda: decode_plane(coded, plane.shape), plane.size, repeats, time.thread_time)
    return [
        row(f"{codec}, {name}: encode", encode, "M/s", bars[0], "higher"),
        row(f"{codec}, {name}: decode", decode, "M/s", bars[1], "higher"),
        row(f"{codec}, {name}: size over the entropy of single values", len(coded.body) / entropy_bytes(plane), ""),
    ]


def parallel(plane: np.ndarray) -> dict:
    """Four tensors decoded by two threads (the kernel lets Python go on)."""
    coded: list[Coded] = [encode_plane(part, codec="rans") for part in np.split(plane, 4)]
    with ThreadPoolExecutor(2) as pool:
        decode = partial(decode_plane, shape=(SIDE // 4, SIDE))
        value = rate(lambda: list(pool.map(decode, coded)), plane.size, 10, time.perf_counter)
    return row("rans, dense 4 bits, four tensors over two threads: decode", value, "M/s", better="higher")


def run() -> list[dict]:
    """All rows; the state of the kernel is in the first."""
    rows = []
    for name, plane in speed_planes().items():
        rows += timed(name, plane, "rans", 5, (ENCODE_BAR, DECODE_BAR))
        rows += timed(name, np.ascontiguousarray(plane[:MIX_ROWS]), "mix", 1, (None, None))
        if name == "dense 4 bits":
            rows.append(parallel(plane))
    return [{**entry, "kernel": native_state()} for entry in rows]
