"""Peak: what this machine can do at best, measured: float32 multiply-adds and bytes of memory a second."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

SECONDS = 0.4


@dataclass(frozen=True)
class Peak:
    """`multiply_adds` a second in float32 and `bytes_moved` a second, the best that was seen with so many threads."""

    multiply_adds: float
    bytes_moved: float
    threads: int

    def least_ms(self, multiply_adds: float, size_bytes: float) -> float:
        """The least time that so much work can take: the roofline (Williams, Waterman, Patterson, 2009)."""
        return 1000 * max(multiply_adds / self.multiply_adds, size_bytes / self.bytes_moved)

    def text(self) -> str:
        """In the units people use: two floating point operations a multiply-add."""
        return (
            f"measured peak, threads {self.threads}: {2 * self.multiply_adds / 1e9:,.0f} GFLOP/s in float32, "
            f"{self.bytes_moved / 1e9:,.1f} GB/s of memory"
        )


def measure_peak(threads: int = 1, seconds: float = SECONDS) -> Peak:
    """Run large products and large copies for some tenths of a second each."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            size, channels, side = 1024, 128, 28
            left, right = torch.rand(size, size), torch.rand(size, size)
            picture, kernel = torch.rand(1, channels, side, side), torch.rand(channels, channels, 3, 3)
            work = [
                (size**3, lambda: left @ right),
                # The convolutions of oneDNN reach more than the products of some other library on some processors.
                ((side - 2) ** 2 * channels**2 * 9, lambda: functional.conv2d(picture, kernel)),
            ]
            source, target = torch.rand(16_000_000), torch.rand(16_000_000)
            moves: list[tuple[float, Callable[[], object]]] = [
                (2.0 * source.numel() * 4, lambda: target.copy_(source)),
                (1.0 * source.numel() * 4, lambda: source.sum()),
            ]
            matmul_layers = max(count / fastest(call, seconds) for count, call in work)
            return Peak(matmul_layers, max(count / fastest(call, seconds) for count, call in moves), threads)
    finally:
        torch.set_num_threads(before)


def fastest(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of the calls that fit into `seconds`."""
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
