"""Charts: SVG and bars drawn from the numbers of a report; hovering over a mark shows its value."""

import math
from collections.abc import Callable, Sequence

from cortado.file.accounting import Picture
from cortado.pages.markup import Markup, join, tag
from cortado.pages.words import quantity
from cortado.report import Report
from cortado.units import count_text, size_text

NARROWEST_SHARE = 0.002
COLOURS = 7


def bar(value: float, largest: float, label: str, kind: str) -> Markup:
    """A bar as long as value / largest of its place, and its label."""
    width = 100 * value / largest if largest else 0.0
    return tag(
        "div",
        tag("span", tag("i", class_=f"fill {kind}", style=f"width:{max(width, 0.3):.2f}%"), class_="track"),
        tag("span", label, class_="bar-label"),
        class_="bar",
    )


def stacked(parts: Sequence[tuple[str, float, str]], label: str) -> Markup:
    """One bar split into (name, amount, css class), each part as long as its share."""
    whole = sum(amount for _, amount, _ in parts)
    pieces = [
        tag("i", class_=kind, style=f"width:{100 * amount / whole:.3f}%", title=f"{name}: {size_text(amount)}")
        for name, amount, kind in parts
        if whole and amount / whole > NARROWEST_SHARE
    ]
    return tag("div", *pieces, class_="stack", role="img", aria_label=label)


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover low .. high."""
    span = high - low or max(abs(high), 1.0) * 0.01
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= count)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def score_chart(report: Report) -> Markup:
    """The score on the choice data after every stage as a line, with the file's size under each point."""
    names = ["plain", *(stage.name for stage in report.stages)]
    sizes = [report.plain_bytes, *(stage.size_bytes for stage in report.stages)]
    scores = [report.plain_choice, *(stage.score for stage in report.stages)]
    known = [score for score in scores if math.isfinite(score)]
    if not known:
        return tag("p", "The scores of the stages are unknown.", class_="note")
    ticks = nice_ticks(min(known), max(known))
    left, top, height, bottom = 64, 26, 190, 72
    step = max(46.0, min(230.0, 900 / max(1, len(names) - 1)))
    width = left + step * (len(names) - 1) + 70

    def x(number: int) -> float:
        return left + 24 + step * number

    def y(score: float) -> float:
        return top + height * (ticks[-1] - score) / (ticks[-1] - ticks[0])

    marks: list[Markup | None] = [score_grid(ticks, y, left, width, report.score_unit)]
    if math.isfinite(scores[0]):
        marks.append(level_line(y(scores[0]), left, width, "reference"))
    path = " ".join(f"{x(number):.1f},{y(score):.1f}" for number, score in enumerate(scores) if math.isfinite(score))
    marks.append(tag("polyline", points=path, class_="line"))
    low = [score <= min(scores[max(0, at - 1) : at + 2]) for at, score in enumerate(scores)]
    for number, (name, size, score) in enumerate(zip(names, sizes, scores, strict=True)):
        value = quantity(score, report.score_unit)
        hint = tag("title", f"{name}: {value}, {size_text(size)}")
        if math.isfinite(score):
            marks.append(tag("circle", hint, cx=f"{x(number):.1f}", cy=f"{y(score):.1f}", r=5, class_="dot"))
            marks.append(centred(value, x(number), y(score) + (21 if low[number] else -11), "value"))
        marks.append(centred(str(number) if number else "plain", x(number), top + height + 40, "axis strong"))
        marks.append(centred(size_text(size), x(number), top + height + 57, "axis"))
    return picture(marks, width, top + height + bottom, f"{report.score_name} after every stage")


def level_line(y: float, left: float, right: float, kind: str) -> Markup:
    """A line from left to right."""
    return tag("line", x1=f"{left:.1f}", x2=f"{right:.1f}", y1=f"{y:.1f}", y2=f"{y:.1f}", class_=kind)


def score_grid(ticks: Sequence[float], y: Callable[[float], float], left: float, width: float, unit: str) -> Markup:
    """Level lines with their values."""
    digits = max(0, min(4, -math.floor(math.log10(ticks[1] - ticks[0]))))
    lines = []
    for level in ticks:
        lines.append(level_line(y(level), left, width, "grid"))
        lines.append(tag("text", f"{level:.{digits}f} {unit}", x=left - 8, y=f"{y(level) + 4:.1f}", class_="axis end"))
    return join(*lines)


def centred(words: str, x: float, y: float, kind: str) -> Markup:
    """A text around x."""
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", class_=f"{kind} middle")


def picture(marks: Sequence[object], width: float, height: float, label: str) -> Markup:
    """An SVG that keeps its size and scrolls where the window is narrower."""
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}", "viewBox": f"0 0 {width:.0f} {height:.0f}"}
    drawing = tag("svg", *marks, role="img", aria_label=label, **size)
    return tag("div", drawing, class_="scroll", tabindex=0)


def histogram(shown: Picture, kind: str) -> Markup:
    """Counts as bars above the range of their values."""
    width, height, top = 320.0, 118.0, 6.0
    spans = list(zip(shown.edges[:-1], shown.edges[1:], strict=True))
    low, most = shown.edges[0], max(shown.counts)
    across = width / ((shown.edges[-1] - low) or 1)
    bars = []
    for (begin, end), count in zip(spans, shown.counts, strict=True):
        tall = height * count / most if most else 0.0
        place = {"x": f"{(begin - low) * across:.2f}", "y": f"{top + height - tall:.2f}", "height": f"{tall:.2f}"}
        wide = f"{max((end - begin) * across - 1, 0.5):.2f}"
        bars.append(tag("rect", tag("title", f"{edge_text(begin, end)}: {count:,}"), width=wide, class_=kind, **place))
    floor = top + height
    ends = [
        tag("text", edge_text(*spans[0]), x=0, y=floor + 16, class_="axis"),
        centred(f"highest bar {count_text(most)}", width / 2, floor + 16, "axis"),
        tag("text", edge_text(*spans[-1]), x=width, y=floor + 16, class_="axis end"),
    ]
    view = f"0 0 {width:.0f} {floor + 22:.0f}"
    drawn = (*bars, level_line(floor, 0, width, "base"), *ends)
    drawing = tag("svg", *drawn, viewBox=view, role="img", aria_label=shown.title)
    return tag("figure", drawing, tag("figcaption", shown.title))


def edge_text(begin: float, end: float) -> str:
    """What a bar covers: one whole number, or a range."""
    if begin % 1 == 0.5 and end % 1 == 0.5:
        first, last = math.ceil(begin), math.floor(end)
        return str(first) if first == last else f"{first} to {last}"
    return f"{begin:.3g} to {end:.3g}"
