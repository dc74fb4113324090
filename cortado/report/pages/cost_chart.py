"""Cost chart: scores against what they cost, one line for each way to spend, as a figure or a picture of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from cortado.report.pages.axes import Axis, score_axis, score_labels, size_ticks
from cortado.report.pages.charts import COLOURS, centred_text, level_line
from cortado.report.pages.markup import Markup, join, tag

WIDTH, HEIGHT = 640.0, 320.0
LEFT, TOP, BELOW, ROW = 56.0, 18.0, 46.0, 20.0
ROOM = 1.06
"""Of the axis of costs beyond the least and the largest."""
COLOURS_IN_LIGHT = ("#9a4f1b", "#3c6e8f", "#d9a441", "#5b8a5a", "#b0617f", "#6f6aa8")
COLOURS_IN_DARK = ("#e0955a", "#7fb3d5", "#e8c66b", "#8fc28e", "#dc9ab4", "#a9a4e0")


@dataclass(frozen=True)
class CostLine:
    """One way to spend: its points (cost above 0, score), by rising cost; `joined` by a line, or apart."""

    name: str
    points: tuple[tuple[float, float], ...]
    joined: bool = True


def cost_chart(lines: Sequence[CostLine], cost_name: str, score_name: str) -> Markup:
    """Return the drawing: cost by factors across, score up, a legend below.  Hovering over a point shows its values."""
    across, up = cost_scale([cost for one in lines for cost, _ in one.points]), all_scores(lines)
    drawn = [line_of(number, one, across, up) for number, one in enumerate(lines)]
    names = [line_legend(number, one, TOP + HEIGHT + BELOW + ROW * number) for number, one in enumerate(lines)]
    box = f"0 0 {LEFT + WIDTH + 12:.0f} {TOP + HEIGHT + BELOW + ROW * len(lines):.0f}"
    title = tag("text", score_name, x=0, y=11, class_="axis")
    return tag(
        "svg", title, grid(across, up), *drawn, *names, centred_text(cost_name, LEFT + WIDTH / 2, TOP + HEIGHT + 36, "axis"),
        viewBox=box, role="img", aria_label=f"{score_name} against {cost_name}", xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def picture(drawing: Markup) -> str:
    """Return a drawing as the text of an SVG file, with its own style."""
    head, _, rest = drawing.partition(">")
    return f"{head}>{tag('style', Markup(style()))}{rest}\n"


def style() -> str:
    """Return the style of a picture, in light and in dark."""
    dark = join(*(f".c{number}{{--c:{colour}}}" for number, colour in enumerate(COLOURS_IN_DARK)))
    light = join(*(f".c{number}{{--c:{colour}}}" for number, colour in enumerate(COLOURS_IN_LIGHT)))
    return (
        "text{font:13px system-ui,sans-serif;fill:#6b5d52}.middle{text-anchor:middle}.end{text-anchor:end}"
        ".curve{fill:none;stroke:var(--c);stroke-width:2}.curve-point{fill:var(--c)}.curve-level{stroke:#e4dbd0}"
        f"{light}@media(prefers-color-scheme:dark){{text{{fill:#b3a496}}.curve-level{{stroke:#3a322b}}{dark}}}"
    )


def cost_scale(costs: Sequence[float]) -> Axis:
    """Return a log axis, slightly wider than the costs."""
    low, high = min(costs) / ROOM, max(costs) * ROOM
    return Axis(low, high, tuple(size_ticks(low, high, 8)), log=True)


def all_scores(lines: Sequence[CostLine]) -> Axis:
    """Return the axis of the scores of all lines."""
    return score_axis([score for one in lines for _, score in one.points], 6)


def place_on_chart(point: tuple[float, float], across: Axis, up: Axis) -> tuple[float, float]:
    """Return where a point (cost, score) is drawn."""
    return LEFT + WIDTH * across.at(point[0]) / 100, TOP + HEIGHT * (1 - up.at(point[1]) / 100)


def line_of(number: int, line: CostLine, across: Axis, up: Axis) -> Markup:
    """Return the points of a line, and the line where it has one."""
    places = [place_on_chart(point, across, up) for point in line.points]
    drawn = [
        dot(x, y, tag("title", f"{line.name}: {score:.4g} at {cost:.4g}"))
        for (cost, score), (x, y) in zip(line.points, places, strict=True)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    joined = tag("polyline", points=path, class_="curve") if line.joined else None
    return tag("g", joined, *drawn, class_=f"c{number % (COLOURS - 1)}")


def dot(x: float, y: float, title: Markup | None = None) -> Markup:
    """Return the mark of a point."""
    return tag("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, class_="curve-point")


def grid(across: Axis, up: Axis) -> Markup:
    """Return the levels of both axes with their numbers."""
    drawn = []
    for tick, name in zip(up.ticks, score_labels(up, ""), strict=True):
        _, y = place_on_chart((across.low, tick), across, up)
        drawn += [
            level_line(y, LEFT, LEFT + WIDTH, "curve-level"),
            tag("text", name, x=LEFT - 8, y=f"{y + 4:.1f}", class_="axis end"),
        ]
    for tick in across.ticks:
        x, _ = place_on_chart((tick, up.low), across, up)
        drawn += [
            tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=TOP, y2=TOP + HEIGHT, class_="curve-level"),
            centred_text(f"{tick:.4g}", x, TOP + HEIGHT + 17, "axis"),
        ]
    return join(*drawn)


def line_legend(number: int, line: CostLine, y: float) -> Markup:
    """Return a line's mark and name."""
    mark = dot(LEFT + 8, y)
    stroke = (
        tag("polyline", points=f"{LEFT - 6:.1f},{y:.1f} {LEFT + 22:.1f},{y:.1f}", class_="curve")
        if line.joined
        else None
    )
    words = tag("text", line.name, x=LEFT + 32, y=f"{y + 4:.1f}", class_="axis")
    return tag("g", stroke, mark, words, class_=f"c{number % (COLOURS - 1)}")
