"""Parse and format sizes, times and shares, such as "1.5 MB", "3 ms" or "-0.5 %"."""

import re

from cortado.errors import BadValue

# KB is 1000 bytes, KiB is 1024. Reports print KB.
FACTORS = {
    "size": {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30},
    "time": {"NS": 1e-6, "US": 1e-3, "MS": 1.0, "S": 1e3, "MIN": 6e4, "M": 6e4, "H": 3.6e6},
    "count": {"": 1, "K": 1e3, "M": 1e6, "G": 1e9},
}
PATTERN = re.compile(r"^\s*([+-]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*$")


def number_and_unit(text: str) -> tuple[float, str]:
    """Split "1.5 MB" into (1.5, "MB").  Raises BadValue if the text does not start with a number."""
    match = PATTERN.match(text)
    if match is None:
        raise BadValue(f"units: {text!r} is not a number with a unit. Write, for example, 1.5 MB, 3 ms or -0.5 %.")
    return float(match.group(1)), match.group(2)


def read_quantity(text: str | float, kind: str) -> float:
    """Parse a quantity of `kind`: "size" to bytes, "time" to milliseconds, "count" to a number, "share" to 0..1."""
    if not isinstance(text, str):
        return float(text)
    number, unit = number_and_unit(text)
    if kind == "share":
        if unit not in ("", "%"):
            raise BadValue(f"units: {text!r} is not a share. Write 0.005 or 0.5 %.")
        return number / 100 if unit == "%" else number
    factors = FACTORS[kind]
    if unit.upper() not in factors:
        if kind == "size" and unit == "":
            return number
        known = ", ".join(name for name in factors if name)
        raise BadValue(f"units: {text!r} has no known unit of {kind}, got {unit!r}. Known: {known}.")
    return number * factors[unit.upper()]


def size_of(given: str | float, where: str) -> float:
    """Return the bytes of a knob: a number, or a text such as "40 MB"; 0 for "", as recipes were written once.

    Raises BadValue, which begins with `where`.
    """
    if given == "":
        return 0.0
    try:
        found = read_quantity(given, "size")
    except BadValue as error:
        raise BadValue(f"{where}: size: {error}") from error
    if not found >= 0 or (isinstance(given, str) and found == 0):
        raise BadValue(f"{where}: size must be above 0, got {given!r}. Write, for example, 40 MB.")
    return found


def size_text(size_bytes: float) -> str:
    """Format bytes as a short text, in decimal units: 1762 -> "1.76 KB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        # 999.6 would print as 1e+03, so switch to the next unit before that.
        if abs(size_bytes) >= 0.9995 * factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def count_text(count: float) -> str:
    """Format a count as a short text: 430500 -> "430 K"."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(count) >= 0.9995 * factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f}"


def time_text(milliseconds: float) -> str:
    """Format milliseconds as a short text: 61000 -> "1 min 1 s"."""
    if milliseconds < 1:
        return f"{milliseconds * 1e3:.3g} us"
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
