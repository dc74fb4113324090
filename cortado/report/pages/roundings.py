"""Roundings: each activation drawn on its grid, with the error that its layer adds."""

from collections.abc import Sequence

from cortado.network.compare.rounded import Fill, Rounded, RoundedLayer
from cortado.report.pages import words
from cortado.report.pages.charts import bar
from cortado.report.pages.markup import Markup, join, tag
from cortado.report.pages.tables import number, right_head, table

WIDE, TALL = 232.0, 26.0
LEFT, RIGHT = 32.0, 176.0
"""Ends of the drawn grid; the margins show values outside of it."""
DRAWN_LEVELS = 16
WORST = 3
CLIPPING = 0.01
"""Shares of clipped values from here on are red."""


def roundings_section(rounded: Rounded | None) -> Markup | None:
    """Return the section about rounding; None for a network without it."""
    if rounded is None:
        return None
    errors = [error for layer in rounded.layers for error in (layer.own, layer.total) if error is not None]
    largest = max(errors, default=0.0)
    drawn = any(layer.activations for layer in rounded.layers)
    heads = [tag("th", "layer", scope="col"), tag("th", "error: added here, so far", scope="col")]
    if drawn:
        heads.insert(1, tag("th", "activation on its grid", scope="col"))
        heads += [right_head(name) for name in ("activation range", "grid", "clipped")]
    rows = [row for layer in rounded.layers for row in rounding_rows(layer, largest, drawn)]
    caption = f"On {rounded.samples:,} samples of the validation data, in the order of execution"
    shown = table([tag("tr", *heads)], rows, "roundings" if drawn else "roundings weights-only", caption)
    lead, note = tag("p", summary(rounded), class_="lead"), READING + (GRIDS if drawn else "")
    return tag("section", tag("h2", "What rounding does"), lead, key(drawn), shown, tag("p", note, class_="note"))


READING = (
    "An error is the root mean square difference to the original network, as a share of the original activation: added here "
    "if the layer reads the original network's inputs, so far with all layers before it."
)
GRIDS = " All grids are drawn equally wide; an activation that fills little of it wastes levels, values beyond it are clipped."


def summary(rounded: Rounded) -> str:
    """Return a summary: the error of the outputs, where most of it arises, and whether grids clip."""
    worst = sorted((layer for layer in rounded.layers if layer.own), key=lambda layer: -(layer.own or 0.0))[:WORST]
    sentences = [f"The outputs differ by {error_text(rounded.output)} from those of the original network."]
    if worst:
        sentences.append(
            "Most is added at " + ", ".join(f"{called(layer)} ({error_text(layer.own)})" for layer in worst) + "."
        )
    fills = [fill for layer in rounded.layers for fill in layer.activations if fill.cut is not None]
    short = sum((fill.cut or 0.0) >= CLIPPING for fill in fills)
    if fills:
        clip = f"{short} of {len(fills)} grids clip" if short else f"None of {len(fills)} grids clips"
        sentences.append(f"{clip} {100 * CLIPPING:.0f} % of the values or more.")
    return " ".join(sentences).replace(" %", "\u00a0%")


def called(layer: RoundedLayer) -> str:
    """Return the name of a layer; the network itself has an empty path."""
    return layer.path or "the network"


def key(drawn: bool) -> Markup:
    """Return the legend; with the marks of activations if any are drawn."""
    items: list[tuple[str, float, list[Markup]]] = []
    if drawn:
        items = [
            ("the grid with its levels", 40, grid_marks(3, 2.0, 38.0)),
            ("98 % of the values", 40, [box(2.0, 38.0, "most")]),
            ("least to largest value", 40, [middle_line(2.0, 38.0, "reach")]),
            ("outside, so clipped", 40, [box(2.0, 20.0, "most off"), middle_line(20.0, 38.0, "reach off")]),
            ("zero", 6, [upright(3.0, "zero", 5.0)]),
        ]
    marks = [
        tag("li", tag("svg", *made, width=wide, height=20, viewBox=f"0 3 {wide} 20", aria_hidden="true"), name)
        for name, wide, made in items
    ]
    errors = [("error added by the layer", "small"), ("error of the activation so far", "original")]
    marks += [tag("li", tag("i", class_=f"fill {kind}"), name) for name, kind in errors]
    return tag("ul", *marks, class_="key")


def rounding_rows(layer: RoundedLayer, largest: float, drawn: bool) -> list[Markup]:
    """Return a row for each quantized activation of a layer, or one for a layer with only a quantized weight."""
    many = max(1, len(layer.activations))
    span = many if many > 1 else None
    attached = "" if layer.weight_bits is None else f", weight {bits_text(layer.weight_bits)}"
    name = tag("th", called(layer), tag("small", layer.kind + attached), scope="row", rowspan=span)
    errors = tag("td", *[error_bar(layer, kind, largest) for kind in ("own", "total")], class_="errors", rowspan=span)
    if not drawn:
        return [tag("tr", name, errors)]
    if not layer.activations:
        return [tag("tr", name, tag("td", class_="on-grid"), errors, *[number(words.NOTHING)] * 3)]
    first, *rest = layer.activations
    top = tag("tr", name, picture_cell(first), errors, number_cells(first))
    return [top, *[tag("tr", picture_cell(fill), number_cells(fill), class_="same") for fill in rest]]


def bits_text(bits: int) -> str:
    """Return "1 bit", "2 bits"."""
    return f"{bits} bit{'s' * (bits > 1)}"


def error_bar(layer: RoundedLayer, which: str, largest: float) -> Markup:
    """Return the bar of a layer's own error, or of the total so far."""
    value, kind = (layer.own, "small") if which == "own" else (layer.total, "original")
    if value is None:
        return tag("div", tag("span", class_="track"), tag("span", words.UNKNOWN, class_="bar-label"), class_="bar")
    return bar(value, largest, error_text(value), kind)


def error_text(error: float | None) -> str:
    """Return an error in percent: one decimal, below 1 % two digits."""
    if error is None:
        return words.UNKNOWN
    return f"{100 * error:.1f} %" if error >= 0.00995 else f"{100 * error:.2g} %"


def picture_cell(fill: Fill) -> Markup:
    """An activation on its grid."""
    return tag("td", fill_picture(fill), class_="on-grid")


def number_cells(fill: Fill) -> Markup:
    """Return the cells of an activation: its range, its grid, the clipped share."""
    grid = "set per sample" if fill.grid is None else span_text(*fill.grid)
    kind = "number clipping" if fill.cut is not None and fill.cut >= CLIPPING else "number"
    return join(
        number(join(span_text(fill.low, fill.high), tag("small", f"98 %: {span_text(fill.first, fill.last)}"))),
        number(join(grid, tag("small", f"{fill.side}, {bits_text(fill.bits)}"))),
        tag("td", cut_text(fill.cut), class_=kind),
    )


def span_text(low: float, high: float) -> str:
    """Return -0.44 and 1.2 as "−0.44 to 1.2"."""
    return f"{low:.3g} to {high:.3g}".replace("-", words.MINUS)


def cut_text(cut: float | None) -> str:
    """Return the share of values that a grid clips."""
    if cut is None:
        return words.UNKNOWN
    return "none" if cut == 0 else "< 0.01 %" if cut < 1e-4 else f"{100 * cut:.2g} %"


def fill_picture(fill: Fill) -> Markup:
    """Return the drawing: a line from the least to the largest value, a bar from 1 % to 99 %, red outside the grid."""
    spoken = f"{fill.side}: seen {span_text(fill.low, fill.high)}"
    if fill.grid is None or fill.bounds is None or fill.grid[1] <= fill.grid[0]:
        marks = [tag("text", "no fixed grid", x=LEFT, y=TALL / 2 + 4, class_="axis")]
    else:
        low, high = fill.grid
        spoken += f", grid {span_text(low, high)}, clipped {cut_text(fill.cut)}"

        def x(value: float) -> float:
            return min(max(LEFT + (RIGHT - LEFT) * (value - low) / (high - low), 1.0), WIDE - 1.0)

        marks = grid_marks(fill.bits, LEFT, RIGHT)
        for begin, end, kind in pieces(fill.low, fill.high, fill.bounds):
            marks.append(middle_line(x(begin), x(end), f"reach {kind}".strip()))
        for begin, end, kind in pieces(fill.first, fill.last, fill.bounds):
            marks.append(box(x(begin), x(end), f"most {kind}".strip()))
        marks += arrows(x(fill.low), x(fill.high))
        if low <= 0 <= high:
            marks.append(upright(x(0.0), "zero"))
    view = f"0 0 {WIDE:.0f} {TALL:.0f}"
    return tag("svg", tag("title", spoken), *marks, viewBox=view, role="img", aria_label=spoken)


def pieces(begin: float, end: float, bounds: tuple[float, float]) -> list[tuple[float, float, str]]:
    """Split an interval at the bounds of a grid; pieces outside are "off"."""
    low, high = bounds
    parts = [
        (begin, min(end, low), "off"), (max(begin, low), min(end, high), ""), (max(begin, high), end, "off")
    ]  # fmt: skip
    return [(first, last, kind) for first, last, kind in parts if last > first]


def grid_marks(bits: int, left: float, right: float) -> list[Markup]:
    """Return the grid as a band, with its levels if they are few."""
    band = tag(
        "rect", x=f"{left:.1f}", y=3, width=f"{right - left:.1f}", height=TALL - 6, rx=3, class_="track-mark"
    )  # fmt: skip
    count = 2**bits
    inner = range(1, count - 1) if count <= DRAWN_LEVELS else ()
    return [band, *[upright(left + (right - left) * at / (count - 1), "level", 3.5) for at in inner]]


def middle_line(begin: float, end: float, kind: str) -> Markup:
    """Return a horizontal line in the middle."""
    middle = f"{TALL / 2:.1f}"
    return tag("line", x1=f"{begin:.1f}", x2=f"{end:.1f}", y1=middle, y2=middle, class_=kind)


def box(begin: float, end: float, kind: str) -> Markup:
    """Return a bar around the middle."""
    return tag("rect", x=f"{begin:.1f}", y=TALL / 2 - 4, width=f"{end - begin:.1f}", height=8, rx=1.5, class_=kind)


def upright(x: float, kind: str, gap: float = 1.0) -> Markup:
    """Return a vertical line."""
    return tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=gap, y2=TALL - gap, class_=kind)


def arrows(low: float, high: float) -> Sequence[Markup]:
    """Return arrow heads at the borders, if the activation extends beyond them."""
    middle, made = TALL / 2, []
    if low <= 1.0:
        made.append(tag("path", d=f"M0 {middle} l8 -5 v10 z", class_="arrow"))
    if high >= WIDE - 1.0:
        made.append(tag("path", d=f"M{WIDE} {middle} l-8 -5 v10 z", class_="arrow"))
    return made
