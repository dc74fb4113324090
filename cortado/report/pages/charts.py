"""Charts: SVG charts and bars of a report; hovering over a mark shows its value."""

import math
from collections.abc import Sequence

from cortado.file.accounting import Histogram
from cortado.quantities import count_text, size_text
from cortado.report.pages.markup import Markup, tag

NARROWEST_SHARE = 0.002
COLOURS = 7


def bar(value: float, largest: float, label: str, kind: str) -> Markup:
    """Return a bar of length value / largest, and its label."""
    width = 100 * value / largest if largest else 0.0
    return tag(
        "div",
        tag("span", tag("i", class_=f"fill {kind}", style=f"width:{max(width, 0.3):.2f}%"), class_="track"),
        tag("span", label, class_="bar-label"),
        class_="bar",
    )


def stacked(parts: Sequence[tuple[str, float, str]], label: str) -> Markup:
    """Return one bar split into (name, amount, css class) by share."""
    whole = sum(amount for _, amount, _ in parts)
    pieces = [
        tag("i", class_=kind, style=f"width:{100 * amount / whole:.3f}%", title=f"{name}: {size_text(amount)}")
        for name, amount, kind in parts
        if whole and amount / whole > NARROWEST_SHARE
    ]
    return tag("div", *pieces, class_="stack", role="img", aria_label=label)


def level_line(y: float, left: float, right: float, kind: str) -> Markup:
    """Return a horizontal line."""
    return tag("line", x1=f"{left:.1f}", x2=f"{right:.1f}", y1=f"{y:.1f}", y2=f"{y:.1f}", class_=kind)


def centred_text(words: str, x: float, y: float, kind: str) -> Markup:
    """Return a text centred at x."""
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", class_=f"{kind} middle")


def histogram_chart(shown: Histogram, kind: str) -> Markup:
    """Return a histogram as a figure."""
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
        centred_text(f"highest bar {count_text(most)}", width / 2, floor + 16, "axis"),
        tag("text", edge_text(*spans[-1]), x=width, y=floor + 16, class_="axis end"),
    ]
    view = f"0 0 {width:.0f} {floor + 22:.0f}"
    drawn = (*bars, level_line(floor, 0, width, "base"), *ends)
    drawing = tag("svg", *drawn, viewBox=view, role="img", aria_label=shown.title)
    return tag("figure", drawing, tag("figcaption", shown.title))


def edge_text(begin: float, end: float) -> str:
    """Return the integer or the range that a bar covers."""
    if begin % 1 == 0.5 and end % 1 == 0.5:
        first, last = math.ceil(begin), math.floor(end)
        return str(first) if first == last else f"{first} to {last}"
    return f"{begin:.3g} to {end:.3g}"
