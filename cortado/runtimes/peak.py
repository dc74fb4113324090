"""Peak: this machine's measured peak of float32 multiply-adds and of memory bytes per second."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

SECONDS = 0.4


@dataclass(frozen=True)
class Peak:
    """The highest measured float32 `multiply_adds` and `bytes_moved` per second with `threads` threads."""

    multiply_adds: float
    bytes_moved: float
    threads: int

    def least_ms(self, multiply_adds: float, size_bytes: float) -> float:
        """Return the least time for this work: the roofline (Williams, Waterman, Patterson, 2009)."""
        return 1000 * max(multiply_adds / self.multiply_adds, size_bytes / self.bytes_moved)

    def text(self) -> str:
        """Return the peaks in GFLOP/s (two operations per multiply-add) and GB/s."""
        return (
            f"measured peak, threads {self.threads}: {2 * self.multiply_adds / 1e9:,.0f} GFLOP/s in float32, "
            f"{self.bytes_moved / 1e9:,.1f} GB/s of memory"
        )


def measure_peak(threads: int = 1, seconds: float = SECONDS) -> Peak:
    """Measure the peak with large matrix products, convolutions and copies, `seconds` each."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            size, channels, side = 1024, 128, 28
            left, right = torch.rand(size, size), torch.rand(size, size)
            picture, kernel = torch.rand(1, channels, side, side), torch.rand(channels, channels, 3, 3)
            work = [
                (size**3, lambda: left @ right),
                # On some processors oneDNN's convolutions are faster than another library's matrix products.
                ((side - 2) ** 2 * channels**2 * 9, lambda: functional.conv2d(picture, kernel)),
            ]
            source, target = torch.rand(16_000_000), torch.rand(16_000_000)
            moves: list[tuple[float, Callable[[], object]]] = [
                (2.0 * source.numel() * 4, lambda: target.copy_(source)),
                (1.0 * source.numel() * 4, lambda: source.sum()),
            ]
            multiply_adds = max(count / fastest(call, seconds) for count, call in work)
            return Peak(multiply_adds, max(count / fastest(call, seconds) for count, call in moves), threads)
    finally:
        torch.set_num_threads(before)


def fastest(call: Callable[[], object], seconds: float) -> float:
    """Return the seconds of the fastest call among those within `seconds`."""
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
