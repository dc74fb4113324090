"""Curves: the mean of each term of the loss in every epoch, a small line chart per term of each stage that trained."""

from collections.abc import Sequence

from cortado.report.pages.axes import nice_ticks
from cortado.report.pages.charts import centred_text, level_line
from cortado.report.pages.markup import Markup, tag
from cortado.report.record import Record, Stage

WIDTH, HEIGHT, TOP = 320.0, 118.0, 8.0
READING = "The mean of each term over every epoch, without its weight, on the training data. Hover over a point for its value."


def curves_section(report: Record) -> Markup | None:
    """Return the charts of all stages that trained; None without any."""
    trained = [(number, stage) for number, stage in enumerate(report.stages, 1) if stage.curves]
    if not trained:
        return None
    parts = [stage_curves(number, stage) for number, stage in trained]
    return tag("section", tag("h2", "What the training minimised"), tag("p", READING, class_="note"), *parts)


def stage_curves(number: int, stage: Stage) -> Markup:
    """Return the charts of one stage under its title."""
    drawn = [curve_chart(name, values) for name, values in stage.curves.items()]
    return tag("div", tag("h3", f"{number} {stage.title}"), tag("div", *drawn, class_="pictures"), class_="curves")


def curve_chart(name: str, values: Sequence[float]) -> Markup:
    """Return one term over the epochs as a figure, on a scale from its least to its largest round number."""
    ticks = nice_ticks(min(values), max(values), 2)
    low, span = ticks[0], ticks[-1] - ticks[0]
    places = [
        (WIDTH * (at + 0.5) / len(values), TOP + HEIGHT * (1 - (value - low) / span)) for at, value in enumerate(values)
    ]
    line = tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_="curve")
    points = [
        tag(
            "circle",
            tag("title", f"epoch {epoch}: {value:.4g}"),
            cx=f"{x:.1f}",
            cy=f"{y:.1f}",
            r=3,
            class_="curve-point",
        )
        for epoch, ((x, y), value) in enumerate(zip(places, values, strict=True), 1)
    ]
    levels = [TOP + HEIGHT * (1 - (tick - low) / span) for tick in ticks]
    scale = [level_line(y, 0, WIDTH, "curve-level") for y in levels]
    scale += [
        tag("text", f"{tick:.4g}", x=0, y=f"{y - 3:.1f}", class_="axis") for tick, y in zip(ticks, levels, strict=True)
    ]
    epochs = f"{len(values)} epochs" if len(values) > 1 else "one epoch"
    below = centred_text(epochs, WIDTH / 2, TOP + HEIGHT + 16, "axis")
    box = f"0 -8 {WIDTH:.0f} {TOP + HEIGHT + 30:.0f}"
    drawing = tag("svg", *scale, line, *points, below, viewBox=box, role="img", aria_label=f"{name} over {epochs}")
    ends = f"{values[0]:.4g} to {values[-1]:.4g}" if len(values) > 1 else f"{values[0]:.4g}"
    return tag("figure", drawing, tag("figcaption", f"{name}: {ends}"))
