"""The logistic function and its inverse as integer tables, identical on every machine (no floating point)."""

from functools import lru_cache

import numpy as np

STEPS_PER_NAT = 256
LIMIT = 3072
"""The tables cover log-odds of -12 to 12."""


def decay_per_step() -> int:
    """Return e**(-1/256) with 64 fractional bits, computed by its series in integers."""
    total, term, order = 0, 1 << 128, 0
    while term:
        total += term if order % 2 == 0 else -term
        order += 1
        term //= STEPS_PER_NAT * order
    return total >> 64


@lru_cache(maxsize=1)
def logistic_tables() -> tuple[np.ndarray, np.ndarray]:
    """Return `squash` (6144 of uint16, 1..65535) and `stretch` (65536 of int16), each the other's inverse."""
    decay, weight = decay_per_step(), 1 << 64
    squash = np.zeros(2 * LIMIT, dtype=np.int64)
    for step in range(LIMIT + 1):
        share = min(max((1 << 80) // ((1 << 64) + weight), 1), 65535)
        if step < LIMIT:
            squash[LIMIT + step] = share
        squash[LIMIT - step] = 65536 - share
        weight = (weight * decay) >> 64
    stretch = np.clip(np.searchsorted(squash, np.arange(65536)) - LIMIT, -LIMIT, LIMIT - 1)
    return squash.astype(np.uint16), stretch.astype(np.int16)
