"""A page of boxes shows every picture once for each network, with the boxes that are sure enough."""

import base64
import io
import re

import numpy as np
import pytest
import torch

from cortado.errors import BadValue
from cortado.report.pages.found_boxes import COLOURS, found_boxes_page

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
TRUE = [
    {"boxes": torch.tensor([[1.0, 2, 11, 22]]), "labels": torch.tensor([1])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)},
]
SEEN = [
    {"boxes": torch.tensor([[1.0, 2, 12, 22], [5, 5, 9, 9]]), "labels": torch.tensor([1, 0]), "scores": torch.tensor([0.9, 0.3])},
    {"boxes": torch.tensor([[3.0, 4, 8, 10]]), "labels": torch.tensor([0]), "scores": torch.tensor([0.5])},
]  # fmt: skip


def frames(page):
    """x, y, width, height, colour and words of each rectangle."""
    pattern = r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" stroke="(#\w+)"><title>([^<]*)'
    return re.findall(pattern, page)


def test_boxes_are_drawn_where_they_are():
    page = found_boxes_page(PICTURES, {"true": TRUE, "original": SEEN}, ["cat", "dog"])
    assert [(*map(float, one[:4]), *one[4:]) for one in frames(page)] == [
        (1, 2, 10, 20, COLOURS[1], "dog"),
        (1, 2, 11, 20, COLOURS[1], "dog 0.90"),
        (3, 4, 5, 6, COLOURS[0], "cat 0.50"),
    ]
    assert page.count(">1 box<") == 3 and page.count(">0 boxes<") == 1 and 'viewBox="0 0 40 30"' in page


def test_less_sure_boxes_are_shown_if_asked():
    assert len(frames(found_boxes_page(PICTURES, {"original": SEEN}, ["cat", "dog"], least=0.2))) == 3


def test_pictures_are_those_given():
    image = pytest.importorskip("PIL.Image")
    page = found_boxes_page(PICTURES, {"true": TRUE, "original": SEEN}, ["cat", "dog"])
    bodies = re.findall(r"data:image/png;base64,([^\"']+)", page)
    assert len(bodies) == 4
    assert np.array_equal(np.asarray(image.open(io.BytesIO(base64.b64decode(bodies[3])))), PICTURES[1])


def test_names_are_escaped():
    page = found_boxes_page(PICTURES, {"<b>": SEEN}, ["a & b", "dog"])
    assert "<b>" not in page and "a &amp; b" in page


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadValue, match="pictures must be"):
        found_boxes_page(PICTURES.astype(np.float32), {}, [])
    with pytest.raises(BadValue, match="has boxes of 1 pictures, and there are 2"):
        found_boxes_page(PICTURES, {"original": SEEN[:1]}, ["cat", "dog"])
    with pytest.raises(BadValue, match="the label 1, and there are 1 classes"):
        found_boxes_page(PICTURES, {"original": SEEN}, ["cat"])
