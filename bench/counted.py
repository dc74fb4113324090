"""A figure of a published table beside our own count of it."""

from typing import Any

import torch

from cortado.errors import BadNetwork
from cortado.nets.catalog import by_name
from cortado.network.profile.profile import Profile, profile

Result = dict[str, Any]


def result(what: str, value: float, unit: str, source: float, bar: float | None = None, note: str = "") -> Result:
    """A row of the report: `value` must equal `bar`, by default what the source prints."""
    bar = source if bar is None else bar
    row = {
        "what": what,
        "value": value,
        "unit": unit,
        "bar": bar,
        "better": "equal",
        "met": value == bar,
        "source_value": source,
    }
    return row | ({"note": note} if note else {})


def profile_of(name: str, pixels: int, channels: int = 3, **options: Any) -> Profile:
    """The profile of a network without values."""
    with torch.device("meta"):
        network = by_name(name, **options)
    return profile(network, torch.zeros(1, channels, pixels, pixels))


def exact(table: Profile, column: str) -> float:
    """The sum of a column.  Raises BadNetwork when some of it is unknown: a table must not print half a count."""
    total = table.total(column)
    if not total.exact:
        raise BadNetwork(f"bench: {column} is {total.text()}, which is no count. Give every operator a cost.")
    return total.value


def operations_of(table: Profile) -> float:
    """Multiply-adds, and one addition of a bias for each output of a layer with weights."""
    return sum(row.multiply_adds + row.activations for row in table.rows if row.weights)


def digits_of(printed: float) -> int:
    """How many digits a printed figure has after the point."""
    return len(str(printed).partition(".")[2]) if isinstance(printed, float) else 0


def like(value: float, printed: float) -> float:
    """A value rounded as the source rounds."""
    rounded = round(value, digits_of(printed))
    return rounded if isinstance(printed, float) else int(rounded)
