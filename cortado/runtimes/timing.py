"""Timing: interleaved measurements of networks and runtimes in one process, with a check of the machine's noise."""

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cortado.errors import BadValue
from cortado.report.report import Clock, Ratio, Time
from cortado.runtimes.stream import streamed

Call = Callable[[], object]

SHORTEST_MS = 2.0
"""A measurement repeats a call until it takes this long."""
WARM_UP_SECONDS = 0.2
FEWEST_ROUNDS, MOST_ROUNDS = 10, 400
ONE = 0.05
"""Largest deviation of the A/A ratio from 1 on a quiet machine."""
SPREAD = 0.3
"""Largest distance between quartiles of the A/A ratio, or of a time over its median, on a quiet machine."""
ORIGINAL, EAGER = "original", "torch_eager"


def check_load(where: str, batches: Sequence[int], threads: int) -> None:
    """Raise BadValue for no batch size, one below 1, or less than one thread."""
    if threads < 1 or not batches or min(batches) < 1:
        raise BadValue(
            f"{where}: batch and threads must be at least 1, got {', '.join(map(str, batches))} and {threads}."
        )


def interleaved(calls: Sequence[Call], seconds: float) -> np.ndarray:
    """Return milliseconds per call, (rounds, calls): A B C, A B C, ... for about `seconds`, after a warm-up of each."""
    repeats = [warmed(call) for call in calls]
    rows: list[list[float]] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while len(rows) < FEWEST_ROUNDS or (time.perf_counter() < end and len(rows) < MOST_ROUNDS):
            rows.append([time_calls(call, times) for call, times in zip(calls, repeats, strict=True)])
    finally:
        if collecting:
            gc.enable()
    return np.array(rows)


def warmed(call: Call) -> int:
    """Warm up a call and return the repeats needed for a measurement."""
    end = time.perf_counter() + WARM_UP_SECONDS
    fastest = time_calls(call, 1)
    for _ in range(2):
        fastest = min(fastest, time_calls(call, 1))
    while time.perf_counter() < end:
        fastest = min(fastest, time_calls(call, 1))
    return max(1, round(SHORTEST_MS / max(fastest, 1e-6)))


def time_calls(call: Call, times: int) -> float:
    """Return the mean milliseconds of `times` calls in a row."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) * 1000 / times


def speed_ratio(slow: np.ndarray, fast: np.ndarray) -> Ratio:
    """Return how many times faster `fast` is: median and quartiles of the ratios per round."""
    low, middle, high = np.quantile(slow / fast, (0.25, 0.5, 0.75))
    return Ratio(float(middle), float(low), float(high))


def is_noisy(again: Ratio) -> bool:
    """Return whether the machine is too noisy, from the A/A ratio."""
    return abs(again.median - 1) > ONE or again.high - again.low > SPREAD


def clock(
    variants: Mapping[tuple[str, str], Call], batch: int, threads: int, seconds: float = 5.0, control: str = EAGER
) -> Clock:
    """Time calls named (network, runtime), which must include the original network in torch_eager and in `control`.

    The original network in the runtime `control` runs first and last in each round: the ratio of its two times measures
    the noise. Each variant gets three ratios: over the original network in torch_eager, in the variant's own runtime, and
    in the runtime that ran the original fastest.
    """
    names = control_first(variants, control)
    taken = interleaved([*(variants[name] for name in names), variants[names[0]]], seconds)
    return clock_from(names, list(variants), taken, batch, threads, control)


def stream_clock(
    variants: Mapping[tuple[str, str], Sequence[Call]], batch: int, threads: int, seconds: float = 5.0, control: str = EAGER
) -> Clock:  # fmt: skip
    """Do the same with a list of calls for each variant, one for each of several inputs."""
    names = control_first(variants, control)
    taken = streamed([*(variants[name] for name in names), variants[names[0]]], seconds)
    made = clock_from(names, list(variants), taken.mean(2), batch, threads, control)
    tails = {name: np.quantile(taken[:, place], (0.5, 0.99)).tolist() for place, name in enumerate(names)}
    times = tuple(replace(row, tails_ms=tuple(tails[row.network, row.runtime])) for row in made.times)
    return replace(made, times=times, inputs=taken.shape[2])


def control_first(variants: Iterable[tuple[str, str]], control: str) -> list[tuple[str, str]]:
    """Return the names of variants, the original network in the runtime `control` first.  Raises BadValue without it."""
    names = list(variants)
    for needed in ((ORIGINAL, EAGER), (ORIGINAL, control)):
        if needed not in names:
            raise BadValue(
                f"timing: the original network in {needed[1]} is missing. Pass it: ratios are relative to it."
            )
    return sorted(names, key=lambda name: name != (ORIGINAL, control))


def clock_from(
    names: Sequence[tuple[str, str]], shown: Sequence[tuple[str, str]], taken: np.ndarray, batch: int, threads: int,
    control: str,
) -> Clock:  # fmt: skip
    """Return the times and ratios of milliseconds (rounds, variants and the first one again)."""
    columns = {name: taken[:, place] for place, name in enumerate(names)}
    best = min((name for name in names if name[0] == ORIGINAL), key=lambda name: float(np.median(columns[name])))
    rows = []
    for network, runtime in shown:
        mine = columns[network, runtime]
        low, middle, high = (float(value) for value in np.quantile(mine, (0.25, 0.5, 0.75)))
        own = columns.get((ORIGINAL, runtime))
        rows.append(
            Time(
                network, runtime, middle, low, high,
                over_eager=speed_ratio(columns[ORIGINAL, EAGER], mine),
                over_same=None if own is None else speed_ratio(own, mine),
                over_best=speed_ratio(columns[best], mine),
            )
        )  # fmt: skip
    again = speed_ratio(taken[:, 0], taken[:, -1])
    restless = is_noisy(again) or any(row.high_ms - row.low_ms > SPREAD * row.median_ms for row in rows)
    return Clock(batch, threads, len(taken), tuple(rows), best[1], control, again, restless)
