"""Waterfall: the effect of each stage on size, score and, if timed, latency; a bar starts where the last one ended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cortado.quantities import size_text, time_text
from cortado.report.pages import words
from cortado.report.pages.axes import Axis, score_axis, score_labels, size_axis, size_labels
from cortado.report.pages.bounds import Bound, score_bound, size_bound, time_bound
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.pages.tables import number
from cortado.report.record import Record

TICKS, FEWER_TICKS = 4, 2
"""Ticks per lane with two lanes, and with three."""
LETTER, LETTER_OF_THREE = 3.0, 5.5
"""Width of a label's letter in percent of a lane, with two lanes, and with three."""
SAME = 1.005
"""Sizes within this factor count as equal."""


def waterfall_section(report: Record) -> Markup:
    """Return the chart: a row for each stage, from the original network to the file."""
    bounds = (size_bound(report), score_bound(report), time_bound(report) if has_times(report) else None)
    bound = "; dashed lines are limits" if any(bounds) else ""
    caption = (
        f"Each bar starts where the one above ended: size on a logarithmic scale, {report.metric_name} (validation data) "
        f"on a linear one{time_words(report)}. Striped bars are changes for the worse{bound}."
    )
    times = times_of(report) if has_times(report) else []
    rows = [step_row(report, step, times[at] if times else None) for at, step in enumerate(steps_of(report))]
    made = tag(
        "table", tag("thead", heads(report)), tag("tbody", *rows), class_="waterfall", aria_label="what each stage did"
    )
    content = tag("div", made, class_="scroll falls", tabindex=0)
    return tag("section", tag("h2", "What each stage did"), tag("p", caption, class_="note"), content)


def axes_of(report: Record) -> tuple[Axis, Axis | None]:
    """Return the axes of sizes and of scores; None without a known score."""
    size, score = size_bound(report), score_bound(report)
    sizes = [report.original_bytes, *(stage.size_bytes for stage in report.stages), *([size.value] if size else [])]
    scores = [report.original_validation, *(stage.score for stage in report.stages), *([score.value] if score else [])]
    known = [value for value in scores if math.isfinite(value)]
    count = FEWER_TICKS if has_times(report) else TICKS
    return size_axis(sizes, count=count), score_axis(known, max(2, count - 1)) if known else None


def has_times(report: Record) -> bool:
    """Return whether stages were timed."""
    return any(stage.latency_ms is not None for stage in report.stages)


def time_words(report: Record) -> str:
    """Return where stages were timed, as part of the caption."""
    line = next((line.what for line in report.lines if line.unit == "ms"), "latency")
    return f"; latency on a logarithmic scale, {line.removeprefix('latency ')}" if has_times(report) else ""


def time_axis(report: Record) -> Axis:
    """Return the axis of times, in microseconds."""
    bound = time_bound(report)
    known = [ms * 1000 for pair in times_of(report) for ms in pair if math.isfinite(ms)]
    return size_axis([*known, *([bound.value * 1000] if bound else [])], count=FEWER_TICKS)


def times_of(report: Record) -> list[tuple[float, float]]:
    """Return the milliseconds before and after each row; nan if unknown."""
    original = next((line.original for line in report.lines if line.unit == "ms"), None)
    taken = [
        math.nan if original is None else original,
        *(math.nan if stage.latency_ms is None else stage.latency_ms for stage in report.stages),
    ]
    return [(taken[0], taken[0]), *pairwise(taken), (taken[0], taken[-1])]


def heads(report: Record) -> Markup:
    """Return the column heads with the scales of the bars."""
    across, up = axes_of(report)
    letter = LETTER_OF_THREE if has_times(report) else LETTER
    sizes = scale(across, size_labels(across), letter)
    scores = scale(up, score_labels(up, report.metric_unit), letter) if up else None
    named: list[Markup] = []
    lanes = [("size of the file", sizes), (report.metric_name, scores)]
    if has_times(report):
        axis = time_axis(report)
        labels = [time_text(tick / 1000) for tick in axis.ticks]
        lanes.append(("latency", scale(axis, labels, letter)))
    for title, drawn in lanes:
        named += [tag("th", tag("span", title, class_="lane-title"), drawn, class_="lane"), tag("th", class_="ends")]
    return tag("tr", tag("th", "stage", scope="col"), *named, tag("th", "time", scope="col", class_="number"))


def scale(axis: Axis, labels: Sequence[str], letter: float) -> Markup:
    """Return the tick labels of an axis, without overlapping ones."""
    named, end = [], -math.inf
    for tick, name in zip(axis.ticks, labels, strict=True):
        half = letter * (len(name) + 1) / 2
        if axis.at(tick) - half >= end:
            named.append(tag("i", name, style=f"left:{axis.at(tick):.2f}%"))
            end = axis.at(tick) + half
    return tag("span", *named, class_="scale", aria_hidden="true")


@dataclass(frozen=True)
class WaterfallStep:
    """A change of size (bytes) and score.  `seconds` is None for the original network."""

    name: object
    sizes: tuple[float, float]
    scores: tuple[float, float]
    seconds: float | None = None
    kind: str | None = None


def steps_of(report: Record) -> list[WaterfallStep]:
    """Return the original network, every stage, and all stages together."""
    sizes = [float(report.original_bytes), *(float(stage.size_bytes) for stage in report.stages)]
    scores = [report.original_validation, *(stage.score for stage in report.stages)]
    steps = [WaterfallStep("original network", (sizes[0], sizes[0]), (scores[0], scores[0]))]
    for at, stage in enumerate(report.stages, 1):
        name = join(f"{at} ", stage.title, aimed(stage.knobs.get("where")))
        steps.append(WaterfallStep(name, (sizes[at - 1], sizes[at]), (scores[at - 1], scores[at]), stage.seconds))
    whole = sum(stage.seconds for stage in report.stages)
    return [*steps, WaterfallStep("all together", (sizes[0], sizes[-1]), (scores[0], scores[-1]), whole, "total")]


def step_row(report: Record, step: WaterfallStep, times: tuple[float, float] | None) -> Markup:
    """Return the row of a step: its bars and their ends, and how long the stage took."""
    across, up = axes_of(report)
    first = step.seconds is None
    sign = 1 if report.higher_is_better else -1
    value = words.quantity(step.scores[1], report.metric_unit)
    better = sign * step.scores[1] >= sign * step.scores[0]
    return tag(
        "tr",
        tag("th", step.name, scope="row"),
        lane(across, step.sizes, size_bound(report), step.sizes[1] <= step.sizes[0], first),
        change(size_text(step.sizes[1]), None if first else size_change(*step.sizes)),
        lane(up, step.scores, score_bound(report), better, first),
        change(value, None if first else score_change(*step.scores, report.metric_unit)),
        *(time_cells(report, times, first) if times is not None else ()),
        number(words.NOTHING if step.seconds is None else time_text(step.seconds * 1000)),
        class_=step.kind,
    )


def time_cells(report: Record, times: tuple[float, float], first: bool) -> list[Markup]:
    """Return the bar of latency and its end."""
    before, after = (1000 * ms for ms in times)
    if not math.isfinite(after):
        return [tag("td", class_="lane"), change(words.NOTHING, None)]
    bound = time_bound(report)
    scaled = None if bound is None else Bound(bound.value * 1000, bound.text)
    step = None if first or not math.isfinite(before) else time_change(before, after)
    bar = lane(time_axis(report), (before, after), scaled, after <= before, first)
    return [bar, change(time_text(after / 1000), step)]


def time_change(before: float, after: float) -> str:
    """Return "1.42× faster"; times within 2 % count as equal."""
    if max(before, after) <= 1.02 * min(before, after):
        return "same time"
    return f"{before / after:.3g}× faster" if after < before else f"{after / before:.3g}× slower"


def aimed(where: object) -> Markup | None:
    """Return a stage's pattern of layers, unless it is all of them."""
    pattern = words.knob_text(where)
    return None if where is None or pattern in ("*", "") else tag("small", pattern)


def score_change(before: float, after: float, unit: str) -> str:
    """Return the difference: two decimals for percentages, three digits for other scores."""
    change = after - before
    if unit == "%" or not math.isfinite(change) or abs(change) >= 10 or f"{change:.3g}" in ("0", "-0"):
        return words.signed_text(change)
    return f"{change:+.3g}".replace("-", words.MINUS)


def size_change(before: float, after: float) -> str:
    """Return "2.40× smaller", or "same size" within the factor SAME."""
    if not before or not after:
        return words.UNKNOWN
    if after <= before:
        return "same size" if before / after < SAME else f"{before / after:.3g}× smaller"
    return f"{after / before:.3g}× larger" if after / before >= SAME else "same size"


def change(value: str, step: str | None) -> Markup:
    """Return a value after a stage and its change."""
    return tag("td", tag("b", value), tag("small", step) if step else None, class_="number change-cell")


def lane(axis: Axis | None, values: tuple[float, float], bound: Bound | None, good: bool, first: bool) -> Markup:
    """Return a bar between two values over the axis lines, with a stroke at its end."""
    if axis is None or not all(math.isfinite(value) for value in values):
        return tag("td", class_="lane")
    lines = [tag("i", class_="rule", style=f"left:{axis.at(tick):.2f}%") for tick in axis.ticks]
    if bound is not None:
        lines.append(tag("i", class_="rule limit", style=f"left:{axis.at(bound.value):.2f}%"))
    begin, end = axis.at(values[0]), axis.at(values[1])
    place = f"left:{min(begin, end):.2f}%;width:{abs(end - begin):.2f}%"
    moved = tag("i", class_=f"move {'gain' if good else 'harm'}", style=place)
    stop = tag("i", class_="stop first" if first else "stop", style=f"left:{end:.2f}%")
    return tag("td", tag("span", *lines, None if first else moved, stop, class_="lane-box"), class_="lane")
