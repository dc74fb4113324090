"""The ImageNet sample: from a small file of pictures drawn here."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cortado.errors import BadTask
from cortado.tasks import imagenet
from cortado.tasks.imagenet import Picture
from cortado.tasks.pixels import Normalise

COUNT = 10
BYTES = Normalise(mean=(0.0,) * 3, std=(1 / 255,) * 3)


def picture(number: int, side: int = 256) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (number, 100 + number, 200)).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def arrays(bodies: list[bytes]) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(body) for body in bodies]).astype("uint32")
    labels = (50 * np.arange(len(bodies))).astype("int16")
    return {"body": np.frombuffer(b"".join(bodies), np.uint8), "ends": ends, "y": labels}


def write(data_folder, **changed):
    (data_folder / "imagenet").mkdir(exist_ok=True)
    np.savez(
        data_folder / "imagenet" / "imagenet_sample.npz",
        **{**arrays([picture(number) for number in range(COUNT)]), **changed},
    )


def test_pictures_are_in_one_part_each_with_their_labels(data_folder):
    write(data_folder)
    task = imagenet.task(seed=3)
    parts = [task.train, task.validation, task.test]
    assert [len(part) for part in parts] == [2, 2, 6]
    labels = torch.cat([part.targets for part in parts])
    assert sorted(labels.tolist()) == [50 * number for number in range(COUNT)]
    reds = torch.cat([part.inputs[:, 0, 0, 0] for part in parts])
    assert torch.equal(50 * reds.long(), labels)
    assert torch.equal(imagenet.task(seed=3).test.targets, task.test.targets)
    assert not torch.equal(imagenet.task(seed=4).test.targets, task.test.targets)


def test_a_picture_is_its_middle():
    pixels = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    pixels[:, 0, 16:240, 16:240] = 1
    assert bool((Picture(normalise=BYTES)(pixels)[:, 0] == 1).all())
    wider = Picture(crop=226, size=226, normalise=BYTES)(pixels)[0, 0]
    assert wider.sum() == 224 * 224 and wider[0].sum() == 0


def test_channels_and_size_are_as_asked_for():
    pixels = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 256, 256)
    made = Picture(size=128, normalise=BYTES, blue_first=True)(pixels)
    assert made.shape == (1, 3, 128, 128)
    assert torch.allclose(made[0, :, 5, 5], torch.tensor([30.0, 20.0, 10.0]))


def test_where_the_file_must_lie_is_told(data_folder):
    with pytest.raises(BadTask, match="imagenet needs the file imagenet_sample.npz. Looked in .*imagenet"):
        imagenet.task()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"body": np.zeros(3, np.uint8)}, "cannot be read as images"),
        (arrays([picture(0, 64)] * COUNT), "must be 256 x 256 RGB, got 64 x 64 RGB"),
        ({"y": np.full(COUNT, 1000)}, "labels of the ImageNet sample must lie in 0..999, got 1000"),
        ({"y": np.zeros(3, int)}, "one label for each image"),
    ],
)
def test_broken_files_are_told(data_folder, changed, says):
    write(data_folder, **changed)
    with pytest.raises(BadTask, match=says):
        imagenet.task()
