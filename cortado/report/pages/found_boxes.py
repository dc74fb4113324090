"""Found boxes: pictures with the boxes of several networks side by side, as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cortado.errors import BadValue
from cortado.report.pages.markup import Markup, tag
from cortado.report.pages.png import data_address

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")
"""Of the classes, in order; distinguishable with any colour vision.  Okabe and Ito, 2008."""
SHOWN = 320
"""Pixels of a picture's width on the page."""
STYLE = Markup(
    "body{font:14px system-ui;margin:24px} td,th{padding:4px 8px;text-align:left;vertical-align:top} "
    "rect{fill:none;stroke-width:2} text{font:9px system-ui} i{display:inline-block;width:12px;height:12px;margin:0 4px 0 12px}"
)


def found_boxes_page(
    pictures: np.ndarray, found: Mapping[str, Sequence[Mapping[str, Any]]], classes: Sequence[str], least: float = 0.4
) -> str:
    """Return a page (HTML) of pictures (N, H, W, 3) uint8, once for each network, with its boxes.

    >>> found = {"true": boxes_by_picture(targets), "original": read(net(inputs)), "compressed": read(small(inputs))}
    >>> Path("boxes.html").write_text(found_boxes_page(pixels, found, ["red cell", "white cell", "platelet"]))

    `found` has for each network one dict per picture: "boxes" (n, 4) in pixels, "labels" (n,), numbers of `classes`, and
    "scores" (n,), unless they are true boxes. Boxes with scores below `least` are left out. Raises BadValue for pictures of
    another kind, another number of them, and a label without a name.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise BadValue(
            f"found_boxes_page: pictures must be (N, H, W, 3) of uint8, got {pictures.shape} of {pictures.dtype}."
        )
    for name, each in found.items():
        if len(each) != len(pictures):
            raise BadValue(
                f"found_boxes_page: {name} has boxes of {len(each)} pictures, and there are {len(pictures)}."
            )
    names = [tag("span", tag("i", style=f"background:{colour_of(number)}"), one) for number, one in enumerate(classes)]
    rows = [tag("tr", *[tag("th", name) for name in found])]
    for number, picture in enumerate(pictures):
        rows.append(tag("tr", *[picture_cell(picture, each[number], classes, least) for each in found.values()]))
    head = tag("head", tag("meta", charset="utf-8"), tag("title", "Boxes"), tag("style", STYLE))
    lead = tag("p", f"Boxes with a score of {least:g} and more.", *names)
    body = tag("body", tag("h1", "Boxes"), lead, tag("table", *rows))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def colour_of(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def picture_cell(picture: np.ndarray, found: Mapping[str, Any], classes: Sequence[str], least: float) -> Markup:
    """Return a picture with its boxes over it, and their number."""
    boxes, labels = numbers_of(found["boxes"]), numbers_of(found["labels"])
    scores = numbers_of(found["scores"]) if "scores" in found else None
    drawn = [
        drawn_box(box, int(label), None if scores is None else float(scores[number]), classes)
        for number, (box, label) in enumerate(zip(boxes.reshape(-1, 4), labels, strict=True))
        if scores is None or scores[number] >= least
    ]
    height, width = picture.shape[:2]
    image = tag("image", href=data_address(picture), width=width, height=height)
    size = {"width": SHOWN, "height": round(SHOWN * height / width), "viewBox": f"0 0 {width} {height}"}
    return tag(
        "td", tag("svg", image, *drawn, role="img", **size), tag("div", f"{len(drawn)} box{'es' * (len(drawn) != 1)}")
    )


def numbers_of(values: Any) -> np.ndarray:
    """Return an array or a tensor as an array of float64."""
    return torch.as_tensor(values).detach().cpu().double().numpy()


def drawn_box(box: np.ndarray, label: int, score: float | None, classes: Sequence[str]) -> Markup:
    """Return a rectangle with its class and score.  Raises BadValue for a label without a name."""
    if not 0 <= label < len(classes):
        raise BadValue(
            f"found_boxes_page: a box has the label {label}, and there are {len(classes)} classes. Name them all."
        )
    words = classes[label] if score is None else f"{classes[label]} {score:.2f}"
    x, y, right, low = (round(float(one), 1) for one in box)
    frame = tag(
        "rect", tag("title", words), x=x, y=y, width=max(right - x, 0), height=max(low - y, 0), stroke=colour_of(label)
    )
    number = "" if score is None else tag("text", f"{score:.2f}", x=x + 2, y=y + 9, fill=colour_of(label))
    return tag("g", frame, number)
