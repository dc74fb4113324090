"""Report: what was measured, stage by stage; it measures networks and files and never repeats the recipe's wishes."""

import json
import math
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cortado.errors import BadFile
from cortado.file.accounting import LayerRow, Picture
from cortado.machine import processor_name
from cortado.units import size_text


@dataclass(frozen=True)
class Stage:
    """One stage as it was found afterwards.  `score` is on the choice data; `size_bytes` is the whole file's."""

    name: str
    knobs: dict[str, Any]
    score: float
    size_bytes: int
    nonzero: float
    seconds: float


@dataclass(frozen=True)
class Line:
    """One row of the verdict: plain | compressed | limit | met.  None means unknown, or no limit.

    `unit` B is shown as KB and MB, ms as seconds and minutes; any other unit is printed as it is.
    """

    what: str
    unit: str
    plain: float | None
    compressed: float | None
    limit: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Compared:
    """Plain and compressed score on the same verdict samples, and the 95 % interval of the paired difference."""

    plain: float
    compressed: float
    difference: float
    low: float | None
    high: float | None
    samples: int


@dataclass(frozen=True)
class Report:
    """Everything measured in one run.  `lines` is the first screen: plain | compressed | limit | met."""

    task: str
    network: str
    score_name: str
    score_unit: str
    higher_is_better: bool
    plain_bytes: int
    plain_choice: float
    stages: tuple[Stage, ...]
    lines: tuple[Line, ...]
    verdict: Compared
    layers: tuple[LayerRow, ...]
    pictures: tuple[Picture, ...] = ()
    warnings: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    environment: dict[str, str] = field(default_factory=dict)

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
        """In one breath; cortado.pages.terminal.report_text has it all."""
        compared, unit = self.verdict, self.score_unit
        interval = "" if compared.low is None else f" (95 % interval {compared.low:+.2f} to {compared.high:+.2f})"
        return (
            f"{self.network} on {self.task}: {size_text(self.plain_bytes)} -> {size_text(self.size_bytes)}, "
            f"{self.plain_bytes / self.size_bytes:.1f} times smaller; {self.score_name} {compared.plain:.2f} {unit} -> "
            f"{compared.compressed:.2f} {unit}, {compared.difference:+.2f} points{interval} on {compared.samples} verdict samples"
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
            "verdict": Compared(**data.pop("verdict")),
            "warnings": tuple(data.pop("warnings")),
        }
        return Report(**data, **rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"report: {path} is not a report of cortado ({error}). Pass report.json of a bundle.") from error


def paired_interval(plain: torch.Tensor, compressed: torch.Tensor, scale: float) -> Compared:
    """Compare two lists of scores of the same samples: the mean difference and its 95 % interval.

    The interval is 1.96 standard errors of the paired differences; with fewer than 30 samples it is unknown (None).
    """
    difference = (compressed - plain).double() * scale
    count = len(difference)
    half = 1.96 * float(difference.std()) / math.sqrt(count) if count >= 30 else None
    middle = float(difference.mean())
    return Compared(
        float(plain.double().mean()) * scale,
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
        "threads": str(torch.get_num_threads()),
    }
