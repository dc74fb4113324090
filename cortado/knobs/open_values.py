"""Open values: what is written for a knob that a search shall choose: "0.2..0.8", "1,2,3" or a list."""

import re
from collections.abc import Mapping
from typing import Any

SEVERAL = re.compile(r"^[\w\s.+-]+(,[\w\s.+-]+)+$")


def looks_open(value: Any) -> bool:
    """Return whether a value is written as a range or as several values."""
    if isinstance(value, list):
        return True
    return isinstance(value, str) and (".." in value or SEVERAL.match(value) is not None)


def open_names(options: Mapping[str, Any]) -> list[str]:
    """Return the names of the options that are open."""
    return [name for name, value in options.items() if looks_open(value)]
