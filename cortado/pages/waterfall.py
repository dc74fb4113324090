"""Waterfall: what each stage did to size and score: a bar begins where the last one ended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cortado.pages import words
from cortado.pages.axes import Axis, score_axis, score_labels, size_axis, size_labels
from cortado.pages.bounds import Bound, score_bound, size_bound
from cortado.pages.markup import Markup, join, tag
from cortado.pages.tables import number
from cortado.report import Report
from cortado.units import size_text, time_text

TICKS = 4


def waterfall_section(report: Report) -> Markup:
    """One row a stage, from the plain network to the file."""
    size, score = size_bound(report), score_bound(report)
    bound = "; a broken line is a limit" if size or score else ""
    caption = (
        f"Each bar begins where the one above ended: size by factors, {report.score_name} evenly, on the choice data. "
        f"Striped bars went the wrong way{bound}."
    )
    rows = [step_row(report, step) for step in steps_of(report)]
    made = tag(
        "table", tag("thead", heads(report)), tag("tbody", *rows), class_="waterfall", aria_label="what each stage did"
    )
    content = tag("div", made, class_="scroll falls", tabindex=0)
    return tag("section", tag("h2", "What each stage did"), tag("p", caption, class_="note"), content)


def axes_of(report: Report) -> tuple[Axis, Axis | None]:
    """Of sizes and of scores; no axis where no score is known."""
    size, score = size_bound(report), score_bound(report)
    sizes = [report.plain_bytes, *(stage.size_bytes for stage in report.stages), *([size.value] if size else [])]
    scores = [report.plain_choice, *(stage.score for stage in report.stages), *([score.value] if score else [])]
    known = [value for value in scores if math.isfinite(value)]
    return size_axis(sizes, count=TICKS), score_axis(known, TICKS - 1) if known else None


def heads(report: Report) -> Markup:
    """The names of the columns, and the scales of the bars."""
    across, up = axes_of(report)
    sizes = scale(across, size_labels(across))
    scores = scale(up, score_labels(up, report.score_unit)) if up else None
    named: list[Markup] = []
    for title, drawn in (("size of the file", sizes), (report.score_name, scores)):
        named += [tag("th", tag("span", title, class_="lane-title"), drawn, class_="lane"), tag("th", class_="ends")]
    return tag("tr", tag("th", "stage", scope="col"), *named, tag("th", "took", scope="col", class_="number"))


def scale(axis: Axis, labels: Sequence[str]) -> Markup:
    """The ticks of an axis above its bars."""
    named = [tag("i", name, style=f"left:{axis.at(tick):.2f}%") for tick, name in zip(axis.ticks, labels, strict=True)]
    return tag("span", *named, class_="scale", aria_hidden="true")


@dataclass(frozen=True)
class Step:
    """From one size (bytes) and score to the next.  `seconds` is None for the plain network, which is where it starts."""

    name: object
    sizes: tuple[float, float]
    scores: tuple[float, float]
    seconds: float | None = None
    kind: str | None = None


def steps_of(report: Report) -> list[Step]:
    """Plain, every stage, and all together."""
    sizes = [float(report.plain_bytes), *(float(stage.size_bytes) for stage in report.stages)]
    scores = [report.plain_choice, *(stage.score for stage in report.stages)]
    steps = [Step("plain network", (sizes[0], sizes[0]), (scores[0], scores[0]))]
    for at, stage in enumerate(report.stages, 1):
        name = join(f"{at} ", stage.name, aimed(stage.knobs.get("where")))
        steps.append(Step(name, (sizes[at - 1], sizes[at]), (scores[at - 1], scores[at]), stage.seconds))
    whole = sum(stage.seconds for stage in report.stages)
    return [*steps, Step("all together", (sizes[0], sizes[-1]), (scores[0], scores[-1]), whole, "total")]


def step_row(report: Report, step: Step) -> Markup:
    """Two bars, where they end, and how long it took."""
    across, up = axes_of(report)
    first = step.seconds is None
    sign = 1 if report.higher_is_better else -1
    value = words.quantity(step.scores[1], report.score_unit)
    better = sign * step.scores[1] >= sign * step.scores[0]
    return tag(
        "tr",
        tag("th", step.name, scope="row"),
        lane(across, step.sizes, size_bound(report), step.sizes[1] <= step.sizes[0], first),
        change(size_text(step.sizes[1]), None if first else size_change(*step.sizes)),
        lane(up, step.scores, score_bound(report), better, first),
        change(value, None if first else score_change(*step.scores, report.score_unit)),
        number(words.NOTHING if step.seconds is None else time_text(step.seconds * 1000)),
        class_=step.kind,
    )


def aimed(where: object) -> Markup | None:
    """The layers that a stage was aimed at, where it was not all."""
    said = words.knob_text(where)
    return None if where is None or said in ("*", "") else tag("small", said)


def score_change(before: float, after: float, unit: str) -> str:
    """The difference: of percentages with two decimals, of other scores with three figures."""
    change = after - before
    if unit == "%" or not math.isfinite(change) or abs(change) >= 10 or f"{change:.3g}" in ("0", "-0"):
        return words.signed(change)
    return f"{change:+.3g}".replace("-", words.MINUS)


def size_change(before: float, after: float) -> str:
    """ "2.40× smaller"; hardly any change is told as such."""
    if not before or not after:
        return words.UNKNOWN
    if after <= before:
        return "same size" if before / after < 1.0005 else f"{before / after:.3g}× smaller"
    return f"{after / before:.3g}× larger"


def change(value: str, step: str | None) -> Markup:
    """Where a stage ended, and how far that is from where it began."""
    return tag("td", tag("b", value), tag("small", step) if step else None, class_="number change-cell")


def lane(axis: Axis | None, values: tuple[float, float], bound: Bound | None, good: bool, first: bool) -> Markup:
    """A bar between two values over the lines of the axis, and a stroke where it ends that leads to the next one."""
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
