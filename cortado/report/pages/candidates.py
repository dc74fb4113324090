"""Candidates: the trials of a search as rows, for the page and the terminal."""

from cortado.quantities import size_text, time_text
from cortado.report.candidate import Tried, smallest_first
from cortado.report.pages import words
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.pages.tables import number, right_head
from cortado.report.record import Record

ROWS_OPEN = 6
"""The table is open up to this many rows."""


def gist(recipe: str) -> str:
    """Return "prune/weights keep=0.5 | prune/weights keep=0.1 | finetune epochs=2" as "2 × prune/weights, finetune"."""
    names = [stage.split()[0] for stage in recipe.split("|") if stage.strip()]
    counts = {name: names.count(name) for name in names}
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items()) or words.UNKNOWN


def trained_text(one: Tried) -> str:
    """Return how long a trial was trained."""
    if not one.epochs:
        return "untrained"
    return f"trained {one.epochs:g} epoch{'' if one.epochs == 1 else 's'}"


def limits_text(one: Tried) -> str:
    """Return whether a trial met its limits on the validation data, and whether it is the result."""
    return ("met" if one.kept else "missed") + (", taken" if one.taken else "")


def facts_of(report: Record, number: int, one: Tried) -> tuple[str, ...]:
    """Return a trial in a few lines: number and outcome, size, score, latency, recipe."""
    score = words.quantity(one.score, report.metric_unit)
    change = f"{words.signed_text(one.score - report.original_validation)} {words.points(report.metric_unit)}".rstrip()
    smaller = words.times_smaller(report.original_bytes, one.size_bytes)
    latency = () if one.latency_ms is None else (f"latency {time_text(one.latency_ms)}",)
    kept = "met its limits" if one.kept else "missed a limit"
    return (
        f"{number}: {kept}{', taken' if one.taken else ''}",
        f"{size_text(one.size_bytes)} ({one.size_bytes:,} B), {smaller} smaller",
        f"{report.metric_name} {score}, {change}",
        *latency,
        f"{gist(one.recipe)}; {trained_text(one)}",
    )


def candidate_table(report: Record) -> Markup:
    """Return the table of trials, smallest first, each with a short and the full recipe."""
    rows = smallest_first(report.front)
    timed = any(one.latency_ms is not None for one in rows)
    names = ["file", "smaller", report.metric_name, *(["latency"] if timed else []), "limits"]
    first = [tag("th", name, scope="col", class_=kind) for name, kind in (("#", "number"), ("candidate", None))]
    heads = tag("tr", *first, *[right_head(name) for name in names])
    made = tag(
        "table", tag("thead", heads), tag("tbody", *[row(report, at, one, timed) for at, one in enumerate(rows, 1)]),
        class_="candidates", aria_label="trials, smallest first",
    )  # fmt: skip
    many = f"{len(rows)} candidates" if len(rows) > 1 else "The candidate"
    opened = "" if len(rows) <= ROWS_OPEN else None
    shown = tag("div", made, class_="scroll", tabindex=0)
    return tag("details", tag("summary", f"{many} as a table"), shown, open=opened)


def row(report: Record, at: int, one: Tried, timed: bool) -> Markup:
    """Return the row of one trial."""
    whole = tag("details", tag("summary", gist(one.recipe)), tag("code", one.recipe))
    latency = words.UNKNOWN if one.latency_ms is None else time_text(one.latency_ms)
    sign = "✓ " if one.kept else "✗ "
    return tag(
        "tr",
        tag("th", at, scope="row", class_="number"),
        tag("td", whole, tag("small", trained_text(one)), class_="what"),
        number(words.sized(one.size_bytes)),
        number(words.times_smaller(report.original_bytes, one.size_bytes)),
        number(words.quantity(one.score, report.metric_unit)),
        number(latency) if timed else None,
        number(join(sign, limits_text(one))),
        class_="taken" if one.taken else None,
    )


def candidate_rows(report: Record) -> list[tuple[str, ...]]:
    """Return the table of trials as text cells with heads; [] for a recipe."""
    if not report.front:
        return []
    timed = any(one.latency_ms is not None for one in report.front)
    found = [("trial", "trained", "file", "smaller", report.metric_name, *(["latency"] if timed else []), "limits", "")]
    for one in smallest_first(report.front):
        latency = words.UNKNOWN if one.latency_ms is None else time_text(one.latency_ms)
        found.append(
            (
                gist(one.recipe), f"{one.epochs:g} epochs" if one.epochs else words.NOTHING, size_text(one.size_bytes),
                words.times_smaller(report.original_bytes, one.size_bytes), words.quantity(one.score, report.metric_unit),
                *([latency] if timed else []), "met" if one.kept else "missed", "<- taken" if one.taken else "",
            )
        )  # fmt: skip
    return found
