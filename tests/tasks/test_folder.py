"""A folder of pictures as a task: what is read, how it is held out, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from cortado.errors import BadTask
from cortado.tasks import folder
from cortado.tasks.folder import task

NAMES = ("apple", "pear", "plum")


def pictures(root, count=8, names=NAMES, size=(20, 14), mode="RGB", ending="png"):
    """Pictures of one colour for each class, its number times 40."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            value = 40 * label + number
            colour = {"RGB": (value,) * 3, "L": value, "RGBA": (value,) * 4, "P": value}[mode]
            Image.new(mode, size, colour).save(root / name / f"{number:02}.{ending}")
    return root


def colours(data):
    return (data.inputs.float().mean((1, 2, 3))).round().long().tolist()


def test_classes_are_the_folders_in_order_and_each_picture_is_in_one_part(tmp_path):
    made = task(str(pictures(tmp_path)), size=8)
    parts = [made.train, made.validation, made.test]
    seen = sorted(value for part in parts for value in colours(part))
    assert seen == sorted(40 * label + number for label in range(3) for number in range(8))
    for part in parts:
        assert [value // 40 for value in colours(part)] == part.targets.tolist()
    assert [len(part) for part in parts] == [18, 3, 3] and made.name == tmp_path.name
    again = task(str(tmp_path), size=8)
    assert colours(again.test) == colours(made.test) != colours(task(str(tmp_path), size=8, seed=4).test)


def test_inputs_are_normalised_and_cropped_to_the_middle(tmp_path):
    root = pictures(tmp_path)
    stripes = np.zeros((16, 32, 3), np.uint8)
    stripes[:, 16:] = 255
    Image.fromarray(stripes).save(root / "apple" / "99.png")
    made = task(str(root), size=(6, 10), resize=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), augment=False, test=0.4)
    inputs = torch.cat([inputs for part in (made.train, made.validation, made.test) for inputs, _ in part.batches(64)])
    assert inputs.shape[1:] == (3, 6, 10)
    two = inputs[(inputs.amax((1, 2, 3)) == 1).nonzero()[0, 0]]
    assert bool((two[:, :, :5] == -1).all()) and bool((two[:, :, 5:] == 1).all())


def test_folders_of_the_parts_are_taken_as_they_are(tmp_path):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        pictures(tmp_path / part, count)
    made = task(str(tmp_path), size=8)
    assert [len(part) for part in (made.train, made.validation, made.test)] == [15, 6, 9]
    for one in (tmp_path / "test").rglob("*.png"):
        one.unlink()
    with pytest.raises(BadTask, match="has no pictures"):
        task(str(tmp_path), size=8)


def test_a_test_folder_alone_leaves_validation_to_be_held_out(tmp_path):
    pictures(tmp_path / "train", 10)
    pictures(tmp_path / "test", 2)
    made = task(str(tmp_path), size=8, validation=0.2)
    assert [len(part) for part in (made.train, made.validation, made.test)] == [24, 6, 6]


def test_classes_may_be_numbered_by_the_user(tmp_path):
    made = task(str(pictures(tmp_path)), size=8, classes=("plum", "apple", "pear"))
    assert {value // 40: label for value, label in zip(colours(made.train), made.train.targets.tolist(), strict=True)} == {
        2: 0, 0: 1, 1: 2,
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "ending"), [("L", "png"), ("RGBA", "png"), ("P", "png"), ("RGB", "jpg")])
def test_pictures_of_any_mode_become_three_channels(mode, ending, tmp_path):
    made = task(str(pictures(tmp_path, mode=mode, ending=ending)), size=8)
    assert made.train.inputs.shape[1:] == (3, 8, 8)


def test_many_pictures_are_read_when_they_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "IN_MEMORY", 100)
    made, kept = task(str(pictures(tmp_path)), size=8), None
    monkeypatch.setattr(folder, "IN_MEMORY", 10**9)
    kept = task(str(tmp_path), size=8)
    assert made.train.items is not None and kept.train.items is None
    for one, other in zip(made.validation.batches(4), kept.validation.batches(4), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": 8, "resize": 4}, "smaller than the crop"), ({"validation": 0.6, "test": 0.5}, "together below 1"),
        ({"validation": 0}, "above 0"), ({"classes": ("apple", "pear")}, "plum is missing or more"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(change, says, tmp_path):
    with pytest.raises(BadTask, match=says):
        task(str(pictures(tmp_path)), **({"size": 8} | change))


def test_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(BadTask, match="is no folder"):
        task(str(tmp_path / "nowhere"))
    with pytest.raises(BadTask, match="has 0 folders"):
        task(str(tmp_path))
    pictures(tmp_path, 2)
    with pytest.raises(BadTask, match="the class apple has 2 pictures"):
        task(str(tmp_path), size=8)
    pictures(tmp_path, 5)
    (tmp_path / "pear" / "01.png").write_bytes(b"no picture")
    with pytest.raises(BadTask, match=r"01\.png cannot be read as a picture"):
        task(str(tmp_path), size=8)
