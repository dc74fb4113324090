"""Timed: a cut network against the original in every runtime that is installed, as rows of a bench."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.result import row
from cortado.machine import instruction_sets
from cortado.report.report import Clock, Ratio, Time
from cortado.runtimes.export import export_into
from cortado.runtimes.measured import COMPRESSED, batch_of, bound
from cortado.runtimes.runtime import Runtime, rivals
from cortado.runtimes.timing import EAGER, ORIGINAL, Call, clock
from cortado.runtimes.torch_eager import TorchSession
from cortado.task.task import Data

CONTROL = "onnxruntime"
"""The runtime in which the original network runs twice in each round, where it is installed."""
SECONDS = 30.0
SAMPLES = 16


def times_in_runtimes(
    small: nn.Module, original: nn.Module, example: Any, name: str, batches: Sequence[int], threads: int = 1
) -> list[dict[str, Any]]:
    """One row for the A/A ratio of each batch size; for each runtime the time, and the three ratios.

    In torch eager both networks run as they are; elsewhere both are lowered, exported and compared with PyTorch first.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = files_of({COMPRESSED: small, ORIGINAL: original}, example, Path(folder))
        for batch in batches:
            inputs = like(example, batch)
            calls: dict[tuple[str, str], Call] = {
                (network, runtime.name()): bound(runtime.load(file, threads), inputs)
                for (network, runtime), file in files.items()
            }
            for network, module in ((COMPRESSED, small), (ORIGINAL, original)):
                calls[network, EAGER] = bound(TorchSession(module.eval(), (), threads), inputs)
            control = CONTROL if (ORIGINAL, CONTROL) in calls else EAGER
            rows += rows_of(clock(calls, batch, threads, SECONDS, control), name)
    return rows


def files_of(networks: dict[str, nn.Module], example: Any, folder: Path) -> dict[tuple[str, Runtime], Path]:
    """Each network exported for each runtime that is installed, compared with itself in PyTorch."""
    files = {}
    inputs = like(example, SAMPLES)
    data = Data(inputs if len(inputs) > 1 else inputs[0], torch.zeros(SAMPLES, dtype=torch.int64))
    for runtime in rivals():
        if runtime.name() == EAGER:
            continue
        for name, network in networks.items():
            own = folder / f"{name}_{runtime.name()}"
            own.mkdir()
            files[name, runtime], _ = export_into(own, network, example, runtime, data, None)
    return files


def like(example: Any, batch: int) -> tuple[Tensor, ...]:
    """So many samples in the shape of the example: noise where it is of floats, else its own over and over."""
    noise, given = torch.Generator().manual_seed(3), batch_of(example, batch)
    return tuple(
        torch.randn(part.shape, generator=noise).to(part.dtype) if part.is_floating_point() else part
        for part in (given if isinstance(given, tuple) else (given,))
    )


def rows_of(found: Clock, name: str) -> list[dict[str, Any]]:
    """All figures of one clock."""
    what = f"{name}, batch {found.batch}"
    facts = {"threads": found.threads, "rounds": found.rounds, "noisy": found.noisy}
    again = ratio_row(f"{what}, plain against itself in {found.control} (A/A)", found.again, facts)
    again["instruction_sets"] = list(instruction_sets())
    rows = [again]
    versions = {runtime.name(): runtime.version() for runtime in rivals()}
    original = {time.runtime: time for time in found.times if time.network == ORIGINAL}
    for time in found.times:
        if time.network == COMPRESSED:
            here = {**facts, "version": versions[time.runtime]}
            rows += rows_in_runtime(f"{what}, {time.runtime}", time, original[time.runtime], found.best, here)
    return rows


def rows_in_runtime(what: str, time: Time, original: Time, best: str, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The time of the cut network in one runtime and its three ratios."""
    label = f"{what}: time ({spread(time.low_ms, time.high_ms)}; plain {original.median_ms:.3g} ms)"
    own = time.over_same
    return [
        row(label, time.median_ms, "ms", low=time.low_ms, high=time.high_ms, original_ms=original.median_ms, **facts),
        ratio_row(f"{what}: measured, times faster than plain in torch eager", time.over_eager, facts),
        *([] if own is None else [ratio_row(f"{what}: measured, times faster than plain in the same", own, facts)]),
        ratio_row(f"{what}: measured, times faster than plain in the best fp32, {best}", time.over_best, facts),
    ]


def ratio_row(what: str, found: Ratio, facts: dict[str, Any]) -> dict[str, Any]:
    """One ratio with its quartiles."""
    label = f"{what} ({spread(found.low, found.high)})"
    return row(label, found.median, "x", better="higher", low=found.low, high=found.high, **facts)


def spread(low: float, high: float) -> str:
    return f"quartiles {low:.3g} to {high:.3g}"
