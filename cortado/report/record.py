"""Record: the measurements of one run, row by row; never targets of a recipe."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cortado.file.accounting import Histogram, LayerRow
from cortado.network.compare.rounded import Rounded
from cortado.report.candidate import Tried


@dataclass(frozen=True)
class Stage:
    """The measurements after one stage.

    `score` is on the validation data, `size_bytes` of the whole file; `notes` come from the method. `latency_ms` is the time
    of one batch in the first runtime, None without a runtime or if it cannot run there. `round` is the round of a repeat:
    "round 2 of 3".
    """

    name: str
    knobs: dict[str, Any]
    score: float
    size_bytes: int
    nonzero: float
    seconds: float
    notes: tuple[str, ...] = ()
    latency_ms: float | None = None
    round: str = ""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """The mean of each term of the loss in every epoch, if the stage trained; reports before version 0.2 have none."""
    parameters: int | None = None
    """Of the network that the stage put in the place of the one so far; None if it did not."""

    def __post_init__(self) -> None:
        # JSON returns a list.
        object.__setattr__(self, "notes", tuple(self.notes))

    @property
    def title(self) -> str:
        """Its name, with its round in a repeat, and with the parameters of a student."""
        size = "" if self.parameters is None else f"{self.parameters:,} parameters"
        return ", ".join(part for part in (self.name, self.round, size) if part)


def notes_of(stages: Sequence[Stage]) -> list[str]:
    """Return the methods' notes, each with its stage."""
    return [f"stage {number} ({stage.title}): {note}" for number, stage in enumerate(stages, 1) for note in stage.notes]


@dataclass(frozen=True)
class Line:
    """One row of the result: original | compressed | limit | met.  None means unknown, or no limit.

    `unit` B is shown as KB and MB, ms as seconds and minutes; any other unit as it is.
    """

    what: str
    unit: str
    original: float | None
    compressed: float | None
    limit: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Compared:
    """Original and compressed score on the same test samples, and the 95 % interval of the paired difference."""

    original: float
    compressed: float
    difference: float
    low: float | None
    high: float | None
    samples: int


@dataclass(frozen=True)
class Edge:
    """An input or output of a runtime's file.

    `scale` and `zero` turn its integers into values, scale x (number - zero); None for floats.
    """

    name: str
    side: str
    dtype: str
    scale: float | None = None
    zero: int | None = None

    def text(self) -> str:
        """Return "input x: int8, scale 0.01868, zero point -14"."""
        grid = "" if self.scale is None else f", scale {self.scale:.4g}, zero point {self.zero}"
        return f"{self.side} {self.name}: {self.dtype}{grid}"


FLOATS, UNREPORTED, INT8 = "float32", "not reported", "int8"
"""Names of kernels: a float product, one that the runtime says nothing of, and a product of 8-bit integers."""


@dataclass(frozen=True)
class Placement:
    """How a runtime's file computes one layer: `bits` of a weight in the file, its `share` of the multiply-adds.

    `why` says why no faster kernel of the runtime computes it; "" where none could.
    """

    layer: str
    kernel: str
    bits: int
    share: float
    why: str = ""


@dataclass(frozen=True)
class Exported:
    """The file for one runtime, on the test data beside PyTorch.

    `difference`: the largest, as a share of the largest output; `same_top`: the share of samples with the same top-1 (None
    if outputs are not classes); scores are in the report's unit.
    """

    runtime: str
    version: str
    size_bytes: int
    score: float | None
    torch_score: float | None
    difference: float
    same_top: float | None
    samples: int
    placements: tuple[Placement, ...] = ()
    """With which kernel the file computes each layer; empty in reports before version 0.2."""
    float_operators: tuple[str, ...] = ()
    """Operators of a quantized network that run in floats, if the runtime reports operators but not layers."""
    rounded: bool = False
    """Whether the network's activations are quantized."""
    paths: str = ""
    """How the file runs what only some samples need, with the times of the forms that were tried; "" if all run alike."""
    other_paths: int = 0
    """Of the samples, how many took another path than in PyTorch; `difference` leaves them out."""
    original_bytes: int | None = None
    """Bytes of the original network's file for the same runtime; None if there is none."""
    edges: tuple[Edge, ...] = ()
    """The file's inputs and outputs, if they may be integers; () if they are the network's own."""

    @property
    def file_line(self) -> str:
        """Return what the line of its size is called."""
        return f"file for {self.runtime}"

    @property
    def integer_share(self) -> float | None:
        """Return the share of multiply-adds in 8-bit integers; None if no activation is quantized, or it is not reported."""
        known = self.rounded and self.placements and all(row.kernel != UNREPORTED for row in self.placements)
        return sum(row.share for row in self.placements if row.kernel == INT8) if known else None

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Return the names of the layers that run in floats, as far as the runtime reports its kernels."""
        return tuple(row.layer for row in self.placements if row.kernel == FLOATS)


@dataclass(frozen=True)
class Ratio:
    """How many times faster: the median over rounds and its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Time:
    """One network in one runtime: milliseconds of a call (median, quartiles), and how many times faster it is than the
    original network in torch_eager, in the same runtime, and in the runtime that ran the original network fastest.

    Over different inputs these are times of the mean call, in passes over all inputs; `tails_ms` are the median and the 99th
    percentile of single calls.
    """

    network: str
    runtime: str
    median_ms: float
    low_ms: float
    high_ms: float
    over_eager: Ratio
    over_same: Ratio | None
    over_best: Ratio
    tails_ms: tuple[float, float] | None = None


@dataclass(frozen=True)
class Clock:
    """Interleaved times in one process, with one batch size and number of threads.

    `best`: the runtime that ran the original network fastest; `again`: the ratio of the original network in the runtime
    `control` to itself, 1 on a quiet machine; `noisy`: whether the machine was busy; `inputs`: how many different batches
    ran, 1 for the example repeated.
    """

    batch: int
    threads: int
    rounds: int
    times: tuple[Time, ...]
    best: str
    control: str
    again: Ratio
    noisy: bool
    inputs: int = 1


@dataclass(frozen=True)
class Record:
    """Everything measured in one run: the data of a Report.  `lines` are its result: original | compressed | limit | met."""

    task: str
    network: str
    metric_name: str
    metric_unit: str
    higher_is_better: bool
    original_bytes: int
    original_validation: float
    stages: tuple[Stage, ...]
    lines: tuple[Line, ...]
    test: Compared
    layers: tuple[LayerRow, ...]
    pictures: tuple[Histogram, ...] = ()
    warnings: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    exports: tuple[Exported, ...] = ()
    clocks: tuple[Clock, ...] = ()
    multiply_adds: tuple[float | None, float | None] = (None, None)
    """Of the original and the compressed network, for one sample."""
    rounded: Rounded | None = None
    """How activations fill their grids and where error enters, on validation data; None if nothing is rounded."""
    execution: dict[str, float] = field(default_factory=dict)
    """For each block that decides per sample: the share of test samples that ran what it keeps inside, by path."""
    shifts: dict[str, Compared] = field(default_factory=dict)
    """Scores on test samples as they are, and shifted (see task/shifts.py); empty for other inputs."""
    front: tuple[Tried, ...] = ()
    """The trials of a search, in order; () for a recipe."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the compressed file."""
        return self.stages[-1].size_bytes

    @property
    def compressed_head(self) -> str:
        """Return the head of the columns of the result: "student" or "cascade" if it is one, else "compressed"."""
        replaced = [stage.name.rpartition("/")[2] for stage in self.stages if stage.parameters is not None]
        return replaced[-1] if replaced else "compressed"

    def first_lines(self) -> tuple[Line, ...]:
        """Return the lines of the first screen: the size of the coded file and of each runtime's file, then the others."""
        limited = {line.what: line for line in self.lines}
        files = {
            row.file_line: limited.get(row.file_line, Line(row.file_line, "B", row.original_bytes, row.size_bytes))
            for row in self.exports
        }
        return (*self.lines[:1], *files.values(), *(line for line in self.lines[1:] if line.what not in files))

    @property
    def met(self) -> bool:
        """Return whether every limit is met (True without limits).  A limit that was not checked is not met."""
        return all(line.met for line in self.lines if line.limit)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, allow_nan=False)
