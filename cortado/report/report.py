"""Report: what was measured, stage by stage; it measures networks and files and never repeats the recipe's wishes."""

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cortado.errors import BadFile
from cortado.file.accounting import LayerRow, Picture
from cortado.machine import instruction_sets, processor_name
from cortado.network.compare.rounded import Fill, Rounded, RoundedLayer
from cortado.quantities import size_text
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


def notes_of(stages: Sequence[Stage]) -> list[str]:
    """What the methods had to say, with the stage."""
    return [f"stage {number} ({stage.title}): {note}" for number, stage in enumerate(stages, 1) for note in stage.notes]


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
    """The layers of a rounded network that it computes in floats all the same."""
    packed_weights: int | None = None
    """Weights of linear layers that the file keeps as packed codes; None for a network that has none of at most 4 bits."""
    packed_bits: tuple[int, ...] = ()
    """Their bits in the file."""
    dense_layers: tuple[str, ...] = ()
    """Linear layers of at most 4 bits that it holds as floats all the same, each with the reason."""
    rounded: bool = False
    """Whether the network's activations are rounded, so that it is meant to run in whole numbers."""


def export_row(data: dict[str, Any]) -> Exported:
    """The row that JSON has as `data`."""
    lists = {key: tuple(data.get(key, ())) for key in ("float_layers", "packed_bits", "dense_layers")}
    return Exported(**{**data, **lists})


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
class Report:
    """Everything measured in one run.  `lines` is the first screen: plain | compressed | limit | met."""

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

    @property
    def met(self) -> bool:
        """Whether every limit is kept (True when none was set).  One that could not be checked is not kept."""
        return all(line.met for line in self.lines if line.limit)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    def __str__(self) -> str:
        """In one breath; cortado.report.pages.terminal.report_text has it all."""
        compared, unit = self.test, self.metric_unit
        interval = "" if compared.low is None else f" (95 % interval {compared.low:+.2f} to {compared.high:+.2f})"
        return (
            f"{self.network} on {self.task}: {size_text(self.original_bytes)} -> {size_text(self.size_bytes)}, "
            f"{self.original_bytes / self.size_bytes:.1f} times smaller; {self.metric_name} {compared.original:.2f} {unit} -> "
            f"{compared.compressed:.2f} {unit}, {compared.difference:+.2f} points{interval} on {compared.samples} test samples"
        )


def read_report(path: str | Path) -> Report:
    """A report from its JSON file.  Raises BadFile when it is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf8"))
        rows: dict[str, Any] = {
            "stages": tuple(Stage(**row) for row in data.pop("stages")),
            "lines": tuple(Line(**row) for row in data.pop("lines")),
            "layers": tuple(LayerRow(**{**row, "shape": tuple(row["shape"])}) for row in data.pop("layers")),
            "pictures": tuple(
                Picture(**{**row, "edges": tuple(row["edges"]), "counts": tuple(row["counts"])})
                for row in data.pop("pictures")
            ),
            "test": Compared(**data.pop("test")),
            "warnings": tuple(data.pop("warnings")),
            "exports": tuple(export_row(row) for row in data.pop("exports", ())),
            "clocks": tuple(clock_of(row) for row in data.pop("clocks", ())),
            "multiply_adds": tuple(data.pop("multiply_adds", (None, None))),
            "rounded": rounded_of(data.pop("rounded", None)),
            "front": tuple(Tried(**row) for row in data.pop("front", ())),
        }
        return Report(**data, **rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"report: {path} is not a report of cortado ({error}). Pass report.json of a bundle.") from error


def clock_of(data: dict[str, Any]) -> Clock:
    """A clock from its JSON data."""
    times = []
    for row in data["times"]:
        values: dict[str, Any] = {
            key: Ratio(**value) if isinstance(value, dict) else value for key, value in row.items()
        }
        times.append(Time(**values))
    return Clock(**{**data, "times": tuple(times), "again": Ratio(**data["again"])})


def rounded_of(data: dict[str, Any] | None) -> Rounded | None:
    """What rounding does, from its JSON data."""
    if data is None:
        return None
    layers = []
    for row in data["layers"]:
        fills = [
            Fill(**{**fill, "grid": None if fill["grid"] is None else tuple(fill["grid"])})
            for fill in row["activations"]
        ]
        layers.append(RoundedLayer(**{**row, "activations": tuple(fills)}))
    return Rounded(**{**data, "layers": tuple(layers)})


Z_95 = 1.96
"""Standard errors from the middle of an interval of 95 % to its ends."""


def paired_interval(original: torch.Tensor, compressed: torch.Tensor, scale: float) -> Compared:
    """Compare two lists of scores of the same samples: the mean difference and its 95 % interval.

    The interval is Z_95 standard errors of the paired differences; with fewer than 30 samples it is unknown (None).
    """
    difference = (compressed - original).double() * scale
    count = len(difference)
    half = Z_95 * float(difference.std()) / math.sqrt(count) if count >= 30 else None
    middle = float(difference.mean())
    return Compared(
        float(original.double().mean()) * scale,
        float(compressed.double().mean()) * scale,
        middle,
        None if half is None else middle - half,
        None if half is None else middle + half,
        count,
    )


def environment() -> dict[str, str]:
    """Where it was measured: processor, cores, versions."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "instruction sets": ", ".join(instruction_sets()) or "unknown",
        "threads": str(torch.get_num_threads()),
    }
