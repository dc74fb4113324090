"""Ponder: pictures with their ponder maps beside them, as one self-contained HTML page."""

from collections.abc import Mapping

import numpy as np

from cortado.errors import BadValue
from cortado.report.pages.markup import Markup, tag
from cortado.report.pages.png import data_address

COLD, WARM = (28, 32, 84), (255, 214, 92)
"""The colours of the fewest and of the most blocks."""
SIDE = 96
"""Pixels of a picture on the page."""


def ponder_page(pictures: np.ndarray, maps: Mapping[str, np.ndarray], blocks: Mapping[str, int]) -> str:
    """Return a page (HTML) of pictures (N, H, W, 3) uint8 and, for each stage, how many blocks every place passed.

    >>> passed = {path: one.numpy() for path, one in ponder_maps(network, inputs).items()}
    >>> Path("ponder.html").write_text(ponder_page(pixels, passed, {"layer3": 3}))

    `maps` are (N,), or (N, height, width), as `ponder_maps` has them; `blocks` counts the blocks of each stage. Raises
    BadValue where they do not fit the pictures.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise BadValue(
            f"ponder_page: pictures must be (N, H, W, 3) of uint8, got {pictures.shape} of {pictures.dtype}."
        )
    for path, passed in maps.items():
        if len(passed) != len(pictures) or path not in blocks:
            raise BadValue(
                f"ponder_page: {path} has {len(passed)} maps and {len(pictures)} pictures, or no count of blocks."
            )
    heads = [tag("th", "picture"), *(tag("th", f"{path}: 1 to {blocks[path]} blocks") for path in maps)]
    rows = [tag("tr", *heads)]
    for number, picture in enumerate(pictures):
        cells = [tag("td", image(picture, "picture"))]
        cells += [tag("td", map_cell(passed[number], blocks[path])) for path, passed in maps.items()]
        rows.append(tag("tr", *cells))
    style = Markup(
        "body{font:14px system-ui;margin:24px} img{image-rendering:pixelated} td,th{padding:4px 12px;text-align:left}"
    )
    head = tag("head", tag("meta", charset="utf-8"), tag("title", "Ponder maps"), tag("style", style))
    body = tag("body", tag("h1", "Ponder maps"), tag("p", "Dark: few blocks. Bright: many."), tag("table", *rows))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def map_cell(passed: np.ndarray, blocks: int) -> Markup:
    """Return a map as a picture, with its mean."""
    share = (np.atleast_2d(passed).astype(np.float64) - 1) / max(blocks - 1, 1)
    colours = np.array(COLD) + share[..., None] * (np.array(WARM) - np.array(COLD))
    words = f"{float(np.mean(passed)):.2f} blocks"
    return tag("div", image(colours.round().astype(np.uint8), words), tag("div", words))


def image(pixels: np.ndarray, words: str) -> Markup:
    """Return an image element with its pixels inside."""
    return tag("img", src=data_address(pixels), width=SIDE, height=SIDE, alt=words)
