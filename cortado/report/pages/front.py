"""Front: a chart of a search's trials, size or latency against score."""

import math
from collections.abc import Sequence

from cortado.report.candidate import Tried, pareto_front, smallest_first
from cortado.report.pages import words
from cortado.report.pages.axes import Axis, score_axis, score_labels, size_axis
from cortado.report.pages.bounds import Bound, score_bound
from cortado.report.pages.candidates import candidate_table, facts_of
from cortado.report.pages.cost import cost_axis
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.record import Record

SPANS_BELOW = 3.0
"""How far the score axis extends below original, result and limit, in multiples of their span; worse scores are clamped."""
TIP_WIDTH = 290
READING = "Hover over a mark, tap it or reach it with the Tab key for details; its number is its row in the table."


def front_section(report: Record) -> Markup | None:
    """Return chart, key and table; None for a recipe."""
    if not report.front:
        return None
    many = f"{len(report.front)} candidates" if len(report.front) > 1 else "one candidate"
    better = "higher" if report.higher_is_better else "lower"
    name = cost_axis(report).name
    axes = f"{name[0].upper()}{name[1:]} and {report.metric_name} on the validation data ({better} is better)"
    caption = f"{axes} of {many}. {READING}"
    content = [tag("p", caption, class_="note")]
    if any(math.isfinite(one.score) for one in report.front):
        content += [front_chart(report), front_key(report)]
    return tag("section", tag("h2", "What was tried"), *content, candidate_table(report), class_="front")


def front_axes(report: Record) -> tuple[Axis, Axis]:
    """Return the axes of costs and of scores.  Very bad scores do not stretch the axis."""
    cost, score = cost_axis(report), score_bound(report)
    costs = [cost.original, *map(cost.of, report.front), *([cost.bound.value] if cost.bound else [])]
    matter = [
        report.original_validation,
        *(one.score for one in report.front if one.taken),
        *([score.value] if score else []),
    ]
    known = [value for value in matter if math.isfinite(value)]
    all_scores = [*known, *(one.score for one in report.front if math.isfinite(one.score))]
    sign = 1 if report.higher_is_better else -1
    room = SPANS_BELOW * (max(known) - min(known)) if known else 0.0
    if room:
        worst = min(sign * value for value in known) - room
        all_scores = [sign * max(sign * value, worst) for value in all_scores]
    return size_axis(costs), score_axis(all_scores, count=8)


def front_chart(report: Record) -> Markup:
    """Return the chart; marks are separate elements, so that they keep their size at any width."""
    across, up = front_axes(report)
    cost, score = cost_axis(report), score_bound(report)
    drawing = tag(
        "svg", allowed(report, across, up, cost.bound, score), grid_lines(across, up), bound_lines(across, up, cost.bound, score),
        steps(report, across, up), width="100%", height="100%", aria_hidden="true", focusable="false",
    )  # fmt: skip
    rows = enumerate(smallest_first(report.front), 1)
    marks = [mark(report, number, one, across, up) for number, one in rows if math.isfinite(one.score)]
    if math.isfinite(report.original_validation):
        marks.insert(0, original_mark(report, across, up))
    plot = tag(
        "div", drawing, tick_names(report, across, up), bound_names(report, across, up),
        tag("ol", *marks, class_="marks", aria_label="the original network, and the candidates from small to large files"),
        class_="plot",
    )  # fmt: skip
    ends = tag("div", f"{cost.name}, by factors", class_="axis-name", aria_hidden="true")
    return tag(
        "div", tag("div", report.metric_name, class_="axis-name left", aria_hidden="true"), plot, ends, class_="scatter"
    )


def css_percent(value: float) -> str:
    return f"{value:.2f}%"


def scale_line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Return a line between two places, in percent from the left and the top."""
    return tag("line", x1=css_percent(x1), y1=css_percent(y1), x2=css_percent(x2), y2=css_percent(y2), class_=kind)


def grid_lines(across: Axis, up: Axis) -> Markup:
    levels = [scale_line(0, 100 - up.at(tick), 100, 100 - up.at(tick), "grid") for tick in up.ticks]
    return join(*levels, *[scale_line(across.at(tick), 0, across.at(tick), 100, "grid") for tick in across.ticks])


def allowed(report: Record, across: Axis, up: Axis, size: Bound | None, score: Bound | None) -> Markup | None:
    """Return the area within all limits."""
    if size is None and score is None:
        return None
    right = 100.0 if size is None else across.at(size.value)
    level = None if score is None else 100 - up.at(score.value)
    top, bottom = (0.0, level) if report.higher_is_better else (level, 100.0)
    top, bottom = top or 0.0, 100.0 if bottom is None else bottom
    return tag(
        "rect", x=0, y=css_percent(top), width=css_percent(right), height=css_percent(bottom - top), class_="allowed"
    )


def bound_lines(across: Axis, up: Axis, size: Bound | None, score: Bound | None) -> Markup:
    """Return the limits as dashed lines."""
    drawn = []
    if size is not None:
        drawn.append(scale_line(across.at(size.value), 0, across.at(size.value), 100, "bound"))
    if score is not None:
        drawn.append(scale_line(0, 100 - up.at(score.value), 100, 100 - up.at(score.value), "bound"))
    return join(*drawn)


def bound_names(report: Record, across: Axis, up: Axis) -> Markup:
    """Return the limits as text, placed where few marks are: large or slow, with bad scores."""
    size, score = cost_axis(report).bound, score_bound(report)
    named, below = [], report.higher_is_better
    if size is not None:
        at = across.at(size.value)
        side = f"right:{100 - at:.2f}%" if at > 60 else f"left:{at:.2f}%"
        named.append(tag("span", size.text, class_="bound-name low" if below else "bound-name high", style=side))
    if score is not None:
        level = 100 - up.at(score.value)
        room = level < 85 if below else level < 15
        named.append(
            tag("span", score.text, class_="bound-name far", style=f"top:{level:.2f}%" if room else f"bottom:{100 - level:.2f}%")
        )  # fmt: skip
    return join(*named)


def steps(report: Record, across: Axis, up: Axis) -> Markup:
    """Return the Pareto front as steps."""
    cost = cost_axis(report)
    places = [(cost.original, report.original_validation), *((cost.of(one), one.score) for one in report.front)]
    sign = 1 if report.higher_is_better else -1
    best = pareto_front(places, cost=lambda one: one[0], harm=lambda one: -sign * one[1])
    at = [(across.at(size), 100 - up.at(score)) for size, score in best]
    drawn = []
    for (x1, y1), (x2, y2) in zip(at[:-1], at[1:], strict=True):
        drawn += [scale_line(x1, y1, x2, y1, "step"), scale_line(x2, y1, x2, y2, "step")]
    return join(*drawn)


def tick_names(report: Record, across: Axis, up: Axis) -> Markup:
    """Return the tick labels of both axes."""
    text = cost_axis(report).text
    named = [tag("span", text(tick), class_="tick down", style=f"left:{across.at(tick):.2f}%") for tick in across.ticks]
    named += [
        tag("span", name, class_="tick side", style=f"top:{100 - up.at(tick):.2f}%")
        for tick, name in zip(up.ticks, score_labels(up, report.metric_unit), strict=True)
    ]
    return tag("div", *named, aria_hidden="true")


def shape(kind: str, words_in: str, off: str = "") -> Markup:
    """Return a mark: a disc for a trial, a square for the original network, a triangle for a clamped score."""
    outline = {
        "original": tag("rect", x=-8, y=-8, width=16, height=16, class_="body"),
        "lower": tag("path", d="M-10.5,-8.5 H10.5 L0,10.5 Z", class_="body"),
        "upper": tag("path", d="M-10.5,8.5 H10.5 L0,-10.5 Z", class_="body"),
    }.get(off or kind, tag("circle", r=9.5, class_="body"))
    ring = tag("circle", r=13.5, class_="ring") if "taken" in kind else None
    words_at = {"lower": 1.5, "upper": 6}.get(off, 4)
    inner = tag("text", words_in, y=words_at, class_="middle") if words_in else None
    return tag("svg", ring, outline, inner, viewBox="-15 -15 30 30", width=30, height=30, class_=f"sign {kind}")


def mark_kind(one: Tried) -> str:
    """Return the CSS class of a mark: filled if the limits were met, with a ring for the result."""
    return ("kept" if one.kept else "missed") + (" taken" if one.taken else "")


def mark(report: Record, number: int, one: Tried, across: Axis, up: Axis) -> Markup:
    """Return the mark of one trial with its details."""
    x, y = across.at(cost_axis(report).of(one)), 100 - up.at(one.score)
    off = "" if up.covers(one.score) else "lower" if one.score < up.low else "upper"
    label = tag("span", "taken", class_="mark-name above", aria_hidden="true") if one.taken else None
    return placed(x, y, [shape(mark_kind(one), str(number), off), label], facts_of(report, number, one), mark_kind(one))


def original_mark(report: Record, across: Axis, up: Axis) -> Markup:
    """Return the mark of the original network."""
    score = words.quantity(report.original_validation, report.metric_unit)
    cost = cost_axis(report)
    reported = ("original network", f"{cost.text(cost.original)}, {report.metric_name} {score}")
    label = tag("span", "original", class_="mark-name before", aria_hidden="true")
    x, y = across.at(cost.original), 100 - up.at(report.original_validation)
    return placed(x, y, [shape("original", ""), label], reported, "original")


def placed(x: float, y: float, drawn: Sequence[object], reported: Sequence[str], kind: str) -> Markup:
    """Return a mark with a tooltip, reachable by mouse and keyboard, that stays inside the chart."""
    style = f"left:{x:.2f}%;top:{y:.2f}%"
    point = tag(
        "span", *drawn, class_=f"mark {kind}", style=style, tabindex=0, role="img", aria_label=". ".join(reported)
    )
    side = f"top:calc({y:.2f}% + 20px)" if y < 50 else f"bottom:calc({100 - y:.2f}% + 20px)"
    wide = f"min({TIP_WIDTH}px,100%)"
    left = f"left:clamp(0px,calc({x:.2f}% - {wide}/2),calc(100% - {wide}))"
    rows = [tag("b", reported[0]), *[tag("span", row) for row in reported[1:]]]
    return tag("li", point, tag("span", *rows, class_="tip", style=f"{side};{left};width:{wide}", aria_hidden="true"))


def front_key(report: Record) -> Markup:
    """Return the legend of the marks in use."""
    _, up = front_axes(report)
    kinds = {mark_kind(one) for one in report.front}
    entries = {
        "kept taken": "taken",
        "missed taken": "taken, though it missed a limit",
        "kept": "met its limits",
        "missed": "missed a limit",
    }
    shown = [tag("li", shape(kind, ""), meaning) for kind, meaning in entries.items() if kind in kinds]
    shown.append(tag("li", shape("original", ""), "original network"))
    if any(not up.covers(one.score) for one in report.front if math.isfinite(one.score)):
        shown.append(tag("li", shape("missed", "", "lower"), "a score beyond the axis"))
    stroke = tag("svg", tag("line", x1=0, x2=26, y1=5, y2=5, class_="step"), width=26, height=10)
    shown.append(tag("li", stroke, f"the best of each {cost_axis(report).each}"))
    return tag("ul", *shown, class_="key", aria_hidden="true")
