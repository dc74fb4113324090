"""Record: what was measured in one run, row by row; it never repeats what a recipe wishes for."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from cortado.file.accounting import LayerRow, Picture
from cortado.network.compare.rounded import Rounded
from cortado.report.candidate import Tried


@dataclass(frozen=True)
class Stage:
    """One stage as it was found afterwards.

    `score` is on the validation data, `size_bytes` the whole file's; `notes` are what the method had to say. `latency_ms` is the
    time of one batch in the first runtime that was asked for, None where none was or it cannot run there. `round` is its
    place in a repeat: "round 2 of 3".
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

    def __post_init__(self) -> None:
        # As JSON they come back in a list.
        object.__setattr__(self, "notes", tuple(self.notes))

    @property
    def title(self) -> str:
        """Its name, with its round in a repeat."""
        return f"{self.name}, {self.round}" if self.round else self.name


@dataclass(frozen=True)
class Line:
    """One row of the test result: plain | compressed | limit | met.  None means unknown, or no limit.

    `unit` B is shown as KB and MB, ms as seconds and minutes; any other unit is printed as it is.
    """

    what: str
    unit: str
    original: float | None
    compressed: float | None
    limit: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Compared:
    """Plain and compressed score on the same test samples, and the 95 % interval of the paired difference."""

    original: float
    compressed: float
    difference: float
    low: float | None
    high: float | None
    samples: int


@dataclass(frozen=True)
class Edge:
    """An input or output of a runtime's file as the file itself takes or gives it.

    `scale` and `zero` turn its whole numbers into values, scale x (number - zero); None for one of floats.
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


@dataclass(frozen=True)
class Exported:
    """The file for one runtime, on the test data beside PyTorch.

    `difference` is the largest one as a share of the largest output; `same_top` the share of samples with the same
    largest output (None where outputs are not classes); scores are in the report's unit.
    """

    runtime: str
    version: str
    size_bytes: int
    score: float | None
    torch_score: float | None
    difference: float
    same_top: float | None
    samples: int
    integer_share: float | None = None
    """Of the multiply-adds, what runs in whole numbers; None for a network in floats, or where the runtime does not tell."""
    float_layers: tuple[str, ...] = ()
    """The layers of a rounded network that it computes in floats all the same, or its operators where it knows no layers."""
    packed_weights: int | None = None
    """Weights of linear layers that the file keeps as packed codes; None for a network that has none of at most 4 bits."""
    packed_bits: tuple[int, ...] = ()
    """Their bits in the file."""
    dense_layers: tuple[str, ...] = ()
    """Linear layers of at most 4 bits that it holds as floats all the same, each with the reason."""
    rounded: bool = False
    """Whether the network's activations are rounded, so that it is meant to run in whole numbers."""
    original_bytes: int | None = None
    """Bytes of the original network's file for the same runtime; None where none was made."""
    edges: tuple[Edge, ...] = ()
    """What the file itself takes and gives, where that may be whole numbers; none where it is what the network takes."""


@dataclass(frozen=True)
class Ratio:
    """How many times faster: the median over rounds and its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Time:
    """One network in one runtime: milliseconds of a call (median, quartiles), and how many times faster it is than the
    original network in torch_eager, in the same runtime, and in the runtime that ran the original network fastest."""

    network: str
    runtime: str
    median_ms: float
    low_ms: float
    high_ms: float
    over_eager: Ratio
    over_same: Ratio | None
    over_best: Ratio


@dataclass(frozen=True)
class Clock:
    """Times taken in turns in one process, with one batch size and number of threads.

    `best` is the runtime that ran the original network fastest; `again` the ratio of the original network in the runtime
    `control` to itself, which is 1 on a quiet machine; `noisy` says that it was not.
    """

    batch: int
    threads: int
    rounds: int
    times: tuple[Time, ...]
    best: str
    control: str
    again: Ratio
    noisy: bool


@dataclass(frozen=True)
class Record:
    """Everything measured in one run: the data of a Report.  `lines` are the limits' rows: plain | compressed | limit | met."""

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
    pictures: tuple[Picture, ...] = ()
    warnings: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    exports: tuple[Exported, ...] = ()
    clocks: tuple[Clock, ...] = ()
    multiply_adds: tuple[float | None, float | None] = (None, None)
    """Of the plain and of the compressed network, for one sample; what they predict is not what is measured."""
    rounded: Rounded | None = None
    """On the validation data, how activations fill their grids and where error enters; None where nothing is rounded."""
    front: tuple[Tried, ...] = ()
    """What a search tried, in its order; nothing where a recipe was given."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the compressed file."""
        return self.stages[-1].size_bytes

    def first_lines(self) -> tuple[Line, ...]:
        """Return the lines of the first screen: after the coded file's size that of each runtime's own file."""
        files = [Line(f"file for {row.runtime}", "B", row.original_bytes, row.size_bytes) for row in self.exports]
        return (*self.lines[:1], *files, *self.lines[1:])

    @property
    def met(self) -> bool:
        """Whether every limit is kept (True when none was set).  One that could not be checked is not kept."""
        return all(line.met for line in self.lines if line.limit)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, allow_nan=False)
