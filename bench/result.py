"""Result: the rows of one bench, with what is needed to make them again, as JSON."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy
import torch

from cortado.machine import processor_name

RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parent / "cache"
PIECES = Path(__file__).parent / "pieces"
"""What took more than ten minutes: small files that are kept with the code, so that another machine can go on."""


def row(
    what: str,
    value: float | None,
    unit: str,
    bar: float | None = None,
    better: str = "lower",
    source_value: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """One measured figure; `met` follows from value, bar and direction (None without a bar)."""
    met = None
    if bar is not None:
        met = value is not None and (value <= bar if better == "lower" else value >= bar)
    return {
        "what": what,
        "value": value,
        "unit": unit,
        "bar": bar,
        "better": better,
        "met": met,
        "source_value": source_value,
        **more,
    }


def spread(
    what: str, values: Sequence[float], unit: str = "%", bar: float | None = None, better: str = "lower"
) -> dict[str, Any]:
    """One row of the mean of several seeds' values, with the values and their sample deviation."""
    deviation = stdev(values) if len(values) > 1 else None
    return row(what, mean(values), unit, bar, better, deviation=deviation, values=list(values))


@dataclass
class Clock:
    """Minutes since it was made."""

    start: float = 0.0

    def __post_init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def minutes(self) -> float:
        return (time.perf_counter() - self.start) / 60


def write(name: str, rows: list[dict[str, Any]], minutes: float, seeds: list[int], arguments: list[str]) -> Path:
    """Write bench/results/<name>.json, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    data = {
        "id": name,
        "command": " ".join(["python -m bench", name, *arguments]),
        "seeds": seeds,
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "date": date.today().isoformat(),
        "minutes": round(minutes, 2),
        "rows": rows,
    }
    path, partial = RESULTS / f"{name}.json", RESULTS / f".{name}.part"
    partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf8")
    partial.replace(path)
    return path


def read_all() -> list[dict[str, Any]]:
    """All stored results, by id."""
    return [json.loads(path.read_text(encoding="utf8")) for path in sorted(RESULTS.glob("*.json"))]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [f"{'what':<72} {'value':>12} {'bar':>10}  met  source"]
    for entry in rows:
        value = "unknown" if entry["value"] is None else f"{entry['value']:,.4g} {entry['unit']}"
        bar = "" if entry.get("bar") is None else f"{'<=' if entry['better'] == 'lower' else '>='} {entry['bar']:g}"
        met = {True: "yes", False: "NO", None: ""}[entry.get("met")]
        source = "" if entry.get("source_value") is None else str(entry["source_value"])
        lines.append(f"{entry['what']:<72} {value:>12} {bar:>10}  {met:<3}  {source}")
    return "\n".join(lines)
