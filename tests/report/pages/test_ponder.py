"""A page of ponder maps shows every picture and map, and its images are those given."""

import base64
import io
import re

import numpy as np
import pytest

from cortado.errors import BadValue
from cortado.report.pages.png import png
from cortado.report.pages.ponder import COLD, WARM, ponder_page

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)


def images(page):
    image = pytest.importorskip("PIL.Image")
    bodies = re.findall(r"data:image/png;base64,([^\"']+)", page)
    return [np.asarray(image.open(io.BytesIO(base64.b64decode(body)))) for body in bodies]


def test_images_of_a_page_are_the_pictures_and_the_maps():
    maps = {"layer1": np.array([[[1, 3], [2, 1]], [[3, 3], [3, 3]]]), "layer2": np.array([1, 2])}
    found = images(ponder_page(PICTURES, maps, {"layer1": 3, "layer2": 2}))
    assert len(found) == 6
    assert np.array_equal(found[0], PICTURES[0]) and np.array_equal(found[3], PICTURES[1])
    assert tuple(found[1][0, 0]) == COLD and tuple(found[1][0, 1]) == WARM and tuple(found[4][1, 1]) == WARM
    assert tuple(found[2][0, 0]) == COLD and tuple(found[5][0, 0]) == WARM


def test_page_says_the_means():
    page = ponder_page(PICTURES, {"s": np.array([[[1, 2]], [[2, 2]]])}, {"s": 2})
    assert "1.50 blocks" in page and "2.00 blocks" in page and "s: 1 to 2 blocks" in page


def test_png_is_read_by_others():
    image = pytest.importorskip("PIL.Image")
    assert np.array_equal(np.asarray(image.open(io.BytesIO(png(PICTURES[0])))), PICTURES[0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadValue, match="pictures must be"):
        ponder_page(PICTURES.astype(np.float32), {}, {})
    with pytest.raises(BadValue, match="has 1 maps and 2 pictures"):
        ponder_page(PICTURES, {"s": np.ones((1, 2, 2))}, {"s": 2})
