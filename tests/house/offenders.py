"""One message for all offenders of a house rule."""

from collections.abc import Iterable


def listed(rule: str, offenders: Iterable[str]) -> str:
    """Return the rule, how many break it, and each of them on a line; "" for none."""
    lines = sorted(offenders)
    return "".join([f"{rule} ({len(lines)}):", *(f"\n  {line}" for line in lines), "\n"]) if lines else ""
