"""Devices: what they draw, compute and charge, from the package's table or a user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cortado.cost.estimate import Estimate, read_estimate
from cortado.errors import BadValue
from cortado.yaml_text import read_yaml

TABLE = Path(__file__).with_name("devices.yaml")
FIELDS = ("watts", "peak", "dollars", "note")


@dataclass(frozen=True)
class Device:
    """One unit: `watts` under load, `peak` operations a second (a multiply-add is two), `dollars` in $ an hour; None: unknown."""

    name: str
    watts: Estimate | None = None
    peak: float | None = None
    dollars: Estimate | None = None
    note: str = ""

    def need(self, what: str) -> Any:
        """Return a figure.  Raises BadValue if the table lacks it."""
        found = getattr(self, what)
        if found is None:
            raise BadValue(
                f"cost: the table has no {what} for {self.name}. Give it with --{what}, or in rows of your own."
            )
        return found


def read_devices(path: str | Path) -> dict[str, Device]:
    """Return the devices of a YAML table, my-board: {watts: 5..7, peak: 2e12, dollars: 0.5}.  Raises BadValue for other files."""
    try:
        rows = read_yaml(Path(path).read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadValue(f"cost: {path} cannot be read as a table of devices ({type(error).__name__}).") from error
    if not isinstance(rows, Mapping):
        raise BadValue(f"cost: {path} must have one device a line, such as my-board: {{watts: 5..7, dollars: 0.02}}.")
    return {str(name): device_row(str(name), facts) for name, facts in rows.items()}


def device_row(name: str, facts: Any) -> Device:
    """Return one row of a table.  Raises BadValue for unknown fields and for figures that are not positive."""
    unknown = sorted(set(facts) - set(FIELDS)) if isinstance(facts, Mapping) else [str(facts)]
    if unknown:
        raise BadValue(f"cost: {name} has the unknown field {unknown[0]}. A device has {', '.join(FIELDS)}.")
    figures = {what: read_estimate(facts[what], f"{what} of {name}") for what in ("watts", "dollars") if what in facts}
    zero = [what for what, one in figures.items() if not one.value]
    peak = None if "peak" not in facts else read_estimate(str(facts["peak"]), f"peak of {name}").value
    if zero or peak == 0:
        raise BadValue(f"cost: {(zero or ['peak'])[0]} of {name} must be above 0.")
    return Device(name, peak=peak, note=str(facts.get("note", "")), **figures)


@cache
def known_devices() -> dict[str, Device]:
    """Return the package's table."""
    return read_devices(TABLE)


def device_by_name(name: str, own: Mapping[str, Device] | None = None) -> Device:
    """Return a device of the user's rows or the package's.  Raises BadValue, with near names, for one that neither has."""
    every = {**known_devices(), **(own or {})}
    if name not in every:
        near = ", ".join(get_close_matches(name, every, 3)) or ", ".join(every)
        raise BadValue(
            f"cost: there is no device {name!r}. Near: {near}. Add a row of your own: --devices my_devices.yaml."
        )
    return every[name]
