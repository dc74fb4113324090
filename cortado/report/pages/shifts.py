"""Shifts: the scores on shifted test samples, for the terminal and the page."""

from cortado.report.pages import words
from cortado.report.pages.markup import Markup, tag
from cortado.report.pages.tables import head_row, number, table
from cortado.report.record import Record

HEADS = ("test samples", "original", "compressed", "difference", "95 % interval")


def shift_rows(report: Record) -> list[tuple[str, ...]]:
    """Return one row for the samples as they are and one for each shift."""
    return [
        (
            name, words.quantity(one.original, report.metric_unit), words.quantity(one.compressed, report.metric_unit),
            words.signed_text(one.difference),
            words.UNKNOWN if one.low is None or one.high is None
            else f"{words.signed_text(one.low)} to {words.signed_text(one.high)}",
        )
        for name, one in report.shifts.items()
    ]  # fmt: skip


def shift_title(report: Record) -> str:
    """Return what the table is."""
    samples = next(iter(report.shifts.values())).samples
    return f"{report.metric_name.capitalize()} on {samples:,} test samples as they are, and shifted"


def shift_table(report: Record) -> Markup | None:
    """Return the table for the page; None without shifts."""
    if not report.shifts:
        return None
    rows = [tag("tr", tag("th", name, scope="row"), *map(number, rest)) for name, *rest in shift_rows(report)]
    made = table([head_row(*HEADS)], rows, "shifts", shift_title(report))
    return tag("section", tag("h2", "On shifted samples"), made)
