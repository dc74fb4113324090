"""File bench: time any file in its runtime, on random inputs of the shapes it declares."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadFile, BadNetwork, BadValue
from cortado.machine import instruction_sets, processor_name
from cortado.quantities import time_text
from cortado.report.pages.kernels import kernel_name
from cortado.report.report import Ratio
from cortado.runtimes.runtime import Port, Runtime, Session, runtime_of_file
from cortado.runtimes.timing import check_load, interleaved, is_noisy, speed_ratio


@dataclass(frozen=True)
class FileBench:
    """Milliseconds of one call: median and quartiles; `again` is the file against itself, 1 on a quiet machine."""

    file: str
    runtime: str
    inputs: tuple[str, ...]
    batch: int
    threads: int
    rounds: int
    median_ms: float
    low_ms: float
    high_ms: float
    again: Ratio
    noisy: bool
    edges: tuple[str, ...] = ()
    """The file's own inputs and outputs, if they may be integers."""
    kernels: tuple[str, ...] = ()
    """What computes layers that are not in floats: "int8 in 20 layers"."""

    def text(self) -> str:
        """Return the times and the conditions they depend on."""
        quiet = "NOISY: the machine was busy, do not trust these times" if self.noisy else "quiet"
        edges = [f"the file has {'; '.join(self.edges)}"] if self.edges else []
        return "\n".join(
            [
                f"{self.file} in {self.runtime}: {time_text(self.median_ms)} a call "
                f"(quartiles {time_text(self.low_ms)} to {time_text(self.high_ms)}), "
                f"{self.batch * 1000 / self.median_ms:,.0f} samples a second",
                f"inputs {', '.join(self.inputs)}; batch {self.batch}, threads {self.threads}, {self.rounds} rounds",
                *edges,
                *([f"layers not in float32: {', '.join(self.kernels)}"] if self.kernels else []),
                f"A/A, the file against itself: {self.again.median:.3f} "
                f"(quartiles {self.again.low:.3f} to {self.again.high:.3f}): {quiet}",
                f"{processor_name()}, {', '.join(instruction_sets()) or 'instruction sets unknown'}",
            ]
        )


def bench_file(
    file: str | Path, batch: int = 1, threads: int = 1, seconds: float = 5.0, open_axes: int | None = None
) -> FileBench:
    """Time a file in the runtime of its suffix.

    >>> taken = cortado.bench("exported/net.onnx", seconds=0.1).median_ms

    Raises BadValue for an unknown suffix or unknown shapes, BadFile for a file that cannot be read, BadNetwork for one that
    does not run, MissingPackage if its runtime is not installed.
    """
    check_load("bench", (batch,), threads)
    file = Path(file)
    if not seconds > 0 or (open_axes is not None and open_axes < 1):
        raise BadValue(f"bench: seconds and open axes must be above 0, got {seconds:g} and {open_axes}.")
    if not file.is_file():
        raise BadFile(f"bench: {file} cannot be read. Check the path.")
    runtime = runtime_of_file(file)
    runtime.require()
    session = runtime.load(file, threads)
    inputs = random_inputs(session, batch, open_axes)
    try:
        session(*inputs)
    except Exception as error:
        raise BadNetwork(f"bench: {file.name} does not run on {shapes_text(session, inputs)} ({error}).") from error
    taken = interleaved([lambda: session(*inputs), lambda: session(*inputs)], seconds)
    low, middle, high = (float(value) for value in np.quantile(taken, (0.25, 0.5, 0.75)))
    again = speed_ratio(taken[:, 0], taken[:, 1])
    return FileBench(
        file.name, f"{runtime.name()} {runtime.version()}", tuple(shapes_text(session, inputs)), len(inputs[0]) if inputs else 0,
        threads, len(taken), middle, low, high, again, is_noisy(again), tuple(edge.text() for edge in runtime.edges(file)),
        kernels_in(runtime, file),
    )  # fmt: skip


def kernels_in(runtime: Runtime, file: Path) -> tuple[str, ...]:
    """Return how many layers each kernel of a file computes; () if the runtime does not report them."""
    counts = Counter((runtime.placed(file) or {}).values())
    return tuple(f"{kernel_name(*ran)} in {count} layer{'s' if count > 1 else ''}" for ran, count in counts.items())


def random_inputs(session: Session, batch: int, open_axes: int | None) -> tuple[Tensor, ...]:
    """Return one batch: normal floats, and zeros or ones for integer and boolean inputs."""
    generator = torch.Generator().manual_seed(0)
    return tuple(random_input(port, batch, open_axes, generator) for port in session.inputs)


def random_input(port: Port, batch: int, open_axes: int | None, generator: torch.Generator) -> Tensor:
    """Return one input; a first axis of open length is the batch."""
    shape = []
    for axis, size in enumerate(port.shape):
        if size is None and axis > 0 and open_axes is None:
            raise BadValue(
                f"bench: axis {axis} of input {port.name!r} has no length in the file, got shape {port.shape}. "
                "Set one, such as --open-axes 128."
            )
        shape.append(size if size is not None else batch if axis == 0 else open_axes or 1)
    if port.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(port.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(port.dtype)


def shapes_text(session: Session, inputs: tuple[Tensor, ...]) -> list[str]:
    """Return the inputs by name and shape."""
    return [f"{port.name} {tuple(given.shape)}" for port, given in zip(session.inputs, inputs, strict=True)]
