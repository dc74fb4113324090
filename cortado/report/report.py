"""Report: a record that prints itself and reads back from its file, and the comparison of scores by sample."""

import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cortado import renamed
from cortado.errors import BadFile
from cortado.file.accounting import Histogram, LayerRow
from cortado.machine import instruction_sets, processor_name
from cortado.network.compare.rounded import Fill, Rounded, RoundedLayer
from cortado.quantities import size_text
from cortado.report.candidate import Tried
from cortado.report.pages import words
from cortado.report.pages.html import first_screen_html
from cortado.report.pages.terminal import first_screen
from cortado.report.record import Clock, Compared, Edge, Exported, Line, Placement, Ratio, Record, Stage, Time


@dataclass(frozen=True, repr=False)
class Report(Record):
    """Everything measured in one run.  `print(report)` shows its first screen, and so does a notebook.

    >>> report.size_bytes < report.original_bytes
    True

    `cortado.report.pages.terminal.report_text(report)` has all tables, `report.met` says whether every limit is kept.
    """

    def __str__(self) -> str:
        return first_screen(self)

    def __repr__(self) -> str:
        sizes = f"{size_text(self.original_bytes)} -> {size_text(self.size_bytes)}"
        scores = " -> ".join(
            words.quantity(one, self.metric_unit) for one in (self.test.original, self.test.compressed)
        )
        return (
            f"<Report: {self.network} on {self.task}, {sizes}, {self.metric_name} {scores}, {words.outcome(self)[0]}>"
        )

    def _repr_html_(self) -> str:
        """Return the first screen for a notebook."""
        return first_screen_html(self)


def read_report(path: str | Path) -> Report:
    """Read a report from its JSON file.  Raises BadFile if it is not a report."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf8"))
        data = renamed.of_report(data) if "plain_bytes" in data else data
        rows: dict[str, Any] = {
            "stages": tuple(Stage(**row) for row in data.pop("stages")),
            "lines": tuple(Line(**row) for row in data.pop("lines")),
            "layers": tuple(LayerRow(**{**row, "shape": tuple(row["shape"])}) for row in data.pop("layers")),
            "pictures": tuple(
                Histogram(**{**row, "edges": tuple(row["edges"]), "counts": tuple(row["counts"])})
                for row in data.pop("pictures")
            ),
            "test": Compared(**data.pop("test")),
            "shifts": {name: Compared(**row) for name, row in data.pop("shifts", {}).items()},
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


def export_row(data: dict[str, Any]) -> Exported:
    """Return an Exported row from its JSON data."""
    known = {name: value for name, value in data.items() if name in Exported.__dataclass_fields__}
    lists: dict[str, Any] = {
        "placements": tuple(Placement(**row) for row in data.get("placements", ())),
        "float_operators": tuple(data.get("float_operators", ())),
        "edges": tuple(Edge(**edge) for edge in data.get("edges", ())),
    }
    return Exported(**{**known, **lists})


def clock_of(data: dict[str, Any]) -> Clock:
    """Return a clock from its JSON data."""
    times = []
    for row in data["times"]:
        values: dict[str, Any] = {
            key: Ratio(**value) if isinstance(value, dict) else value for key, value in row.items()
        }
        times.append(Time(**values))
    return Clock(**{**data, "times": tuple(times), "again": Ratio(**data["again"])})


def rounded_of(data: dict[str, Any] | None) -> Rounded | None:
    """Return the effects of rounding from their JSON data."""
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
"""Standard errors from the centre of a 95 % interval to its ends."""
FEWEST = 30
"""Samples below which an interval is unknown."""


def paired_interval(original: torch.Tensor, compressed: torch.Tensor, scale: float) -> Compared:
    """Compare two lists of scores of the same samples: mean difference and 95 % interval.

    The interval is Z_95 standard errors of the paired differences; with fewer than 30 samples it is unknown (None).
    """
    difference = (compressed - original).double() * scale
    half, middle = half_interval(difference), float(difference.mean())
    return Compared(
        float(original.double().mean()) * scale,
        float(compressed.double().mean()) * scale,
        middle,
        None if half is None else middle - half,
        None if half is None else middle + half,
        len(difference),
    )


def half_interval(values: torch.Tensor) -> float | None:
    """Return half of the 95 % interval of the mean of values (N,); None for fewer than 30."""
    return Z_95 * float(values.std()) / math.sqrt(len(values)) if len(values) >= FEWEST else None


def environment() -> dict[str, str]:
    """Return the processor, threads and versions of this machine."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "instruction sets": ", ".join(instruction_sets()) or "unknown",
        "threads": str(torch.get_num_threads()),
    }
