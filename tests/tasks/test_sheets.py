"""Sheets of images, drawn here by Pillow one small image at a time."""

import builtins
import io

import numpy as np
import pytest
from PIL import Image

from cortado.errors import BadTask, MissingPackage
from cortado.tasks.sheets import read_sheets

IMAGES = np.random.RandomState(0).randint(0, 256, (1100, 32, 32, 3)).astype(np.uint8)
LABELS = (np.arange(1100) % 10).astype(np.uint8)


def sheet(images: np.ndarray, kind: str, size: tuple[int, int] = (1280, 800), mode: str = "RGB") -> np.ndarray:
    picture = Image.new(mode, size)
    for place, image in enumerate(images):
        picture.paste(Image.fromarray(image), (place % 40 * 32, place // 40 * 32))
    stream = io.BytesIO()
    picture.save(stream, kind, **({"lossless": True, "quality": 0, "method": 0} if kind == "WEBP" else {}))
    return np.frombuffer(stream.getvalue(), np.uint8)


@pytest.fixture(scope="module")
def parts() -> dict[str, np.ndarray]:
    return {"y": LABELS, "sheet0": sheet(IMAGES[:1000], "PNG"), "sheet1": sheet(IMAGES[1000:], "WEBP")}


def test_read_sheets_gives_images_and_labels_of_both_kinds(tmp_path, parts):
    np.savez(tmp_path / "set.npz", **parts)
    images, labels = read_sheets(tmp_path / "set.npz")
    assert np.array_equal(images, IMAGES.transpose(0, 3, 1, 2))
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sheet0": sheet(IMAGES[:1], "PNG", size=(640, 800))}, "must be 1280 x 800 RGB, got 640 x 800 RGB"),
        ({"sheet0": sheet(IMAGES[:0], "PNG", mode="L")}, "got 1280 x 800 L"),
        ({"sheet0": sheet(IMAGES[:0], "BMP")}, "cannot be read as sheets"),
        ({"sheet0": sheet(IMAGES[:9], "PNG")[:2000]}, "cannot be read as sheets"),
        ({"sheet1": np.zeros(0, np.uint8)}, "cannot be read as sheets"),
        ({"y": LABELS.astype(np.float32)}, "must be a row of integers"),
        ({"y": LABELS.reshape(2, -1)}, "must be a row of integers"),
        ({"y": np.zeros(200_000, np.uint8)}, "must be a row of integers"),
        ({"y": np.uint8(3)}, "cannot be read as sheets"),
        ({"y": np.array([{}] * 1100)}, "cannot be read as sheets"),
        ({"y": np.zeros(2001, np.uint8)}, "cannot be read as sheets.*sheet2"),
    ],
)
def test_read_sheets_refuses_what_is_no_sheet(tmp_path, parts, change, says):
    np.savez(tmp_path / "set.npz", **{**parts, **change})
    with pytest.raises(BadTask, match=says):
        read_sheets(tmp_path / "set.npz")


def test_read_sheets_refuses_a_cut_and_a_missing_file(tmp_path, parts):
    np.savez(tmp_path / "set.npz", **parts)
    body = (tmp_path / "set.npz").read_bytes()
    for length in (0, 10, len(body) // 2, len(body) - 1):
        (tmp_path / "set.npz").write_bytes(body[:length])
        with pytest.raises(BadTask, match="cannot be read as sheets"):
            read_sheets(tmp_path / "set.npz")
    with pytest.raises(BadTask, match="cannot be read as sheets"):
        read_sheets(tmp_path / "none.npz")


def test_read_sheets_names_the_extra_when_pillow_is_missing(tmp_path, parts, monkeypatch):
    np.savez(tmp_path / "set.npz", **parts)
    ordinary = builtins.__import__

    def without_pillow(name: str, *rest: object) -> object:
        if name == "PIL":
            raise ImportError("no PIL")
        return ordinary(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(MissingPackage, match=r"pip install -e '\.\[images\]'"):
        read_sheets(tmp_path / "set.npz")
