"""MNIST: from each format, small; and the real set where it is at hand."""

import gzip
import hashlib
import io
import lzma
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.errors import BadTask
from cortado.tasks import mnist
from cortado.tasks.store import find

RANDOM = np.random.RandomState(0)
ARRAYS = {
    "train-images-idx3-ubyte": RANDOM.randint(0, 256, (25, 28, 28)).astype(np.uint8),
    "train-labels-idx1-ubyte": (np.arange(25) % 10).astype(np.uint8),
    "t10k-images-idx3-ubyte": RANDOM.randint(0, 256, (8, 28, 28)).astype(np.uint8),
    "t10k-labels-idx1-ubyte": (np.arange(8) % 10).astype(np.uint8),
}


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def packed(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return lzma.compress(stream.getvalue())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """20 images to train on, 5 to choose on, 8 for the test result."""
    if "real" not in request.node.name:
        for name, count in (("TRAIN_COUNT", 20), ("VALIDATION_COUNT", 5), ("TEST_COUNT", 8)):
            monkeypatch.setattr(mnist, name, count)


def write(folder: Path, form: str) -> None:
    folder.mkdir()
    for name, array in ARRAYS.items():
        if form == "packed":
            (folder / mnist.FILES[name][0]).write_bytes(packed(array))
        elif form == "zipped":
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


def check(task: mnist.Task) -> None:
    images, labels = ARRAYS["train-images-idx3-ubyte"][:, None], ARRAYS["train-labels-idx1-ubyte"]
    assert np.array_equal(task.train.inputs, images[:20])
    assert np.array_equal(task.validation.inputs, images[20:])
    assert np.array_equal(task.validation.targets, labels[20:])
    assert np.array_equal(task.test.inputs, ARRAYS["t10k-images-idx3-ubyte"][:, None])
    assert np.array_equal(task.test.targets, ARRAYS["t10k-labels-idx1-ubyte"])
    batch, _ = next(task.validation.batches(5))
    assert np.allclose(batch, (images[20:] / 255 - 0.1307) / 0.3081, atol=1e-6)


@pytest.mark.parametrize("form", ["packed", "zipped", "original"])
def test_mnist_reads_each_format(data_folder, form):
    write(data_folder / "mnist", form)
    check(mnist.task())


def test_mnist_downloads_what_is_missing(data_folder, monkeypatch):
    write(data_folder / "home", "zipped")
    bodies = {name: (data_folder / "home" / f"{name}.gz").read_bytes() for name in ARRAYS}
    entries = {name: ("none", hashlib.sha256(body).hexdigest(), len(body)) for name, body in bodies.items()}
    monkeypatch.setattr(mnist, "FILES", entries)
    monkeypatch.setattr(mnist, "HOMES", ((data_folder / "home").as_uri() + "/",))
    check(mnist.task())
    monkeypatch.setattr(mnist, "HOMES", ())
    check(mnist.task())  # from the cache


def test_mnist_augments_training_images_only_when_asked(data_folder):
    write(data_folder / "mnist", "original")
    assert mnist.task().train.augment is None
    task = mnist.task(augment=True)
    assert task.validation.augment is None
    assert task.test.augment is None
    varied, _ = next(task.train.batches(20, task.generator()))
    order = torch.randperm(20, generator=task.generator())
    original = task.train.prepare(task.train.inputs[order])
    assert varied.shape == original.shape
    assert not torch.allclose(varied, original, atol=0.1)
    # What comes in at the border is black, the least a pixel can be.
    assert varied.min().item() == pytest.approx(-0.1307 / 0.3081, abs=1e-5)


def test_mnist_refuses_lost_images_and_wrong_labels(data_folder):
    write(data_folder / "mnist", "original")
    labels = data_folder / "mnist" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx(np.full(8, 10, np.uint8)))
    with pytest.raises(BadTask, match=r"labels of MNIST's test set must lie in 0\.\.9, got 10"):
        mnist.task()
    labels.write_bytes(idx(np.zeros(7, np.uint8)))
    with pytest.raises(BadTask, match="one label for each image, got 8 images"):
        mnist.task()
    (data_folder / "mnist" / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((7, 28, 28), np.uint8)))
    with pytest.raises(BadTask, match="must have 8 images, got 7"):
        mnist.task()


def test_mnist_says_what_to_do_when_offline(data_folder, monkeypatch):
    monkeypatch.setattr(mnist, "HOMES", ((data_folder / "nowhere").as_uri() + "/",))
    with pytest.raises(BadTask, match="needs the file train-images-idx3-ubyte.gz.*set CORTADO_DATA"):
        mnist.task()


@pytest.mark.skipif(find("mnist", ("mnist_x_train.npy.xz", "train-images-idx3-ubyte.gz")) is None, reason="not here")
def test_mnist_real_set_has_the_published_moments():
    task = mnist.task()
    assert [len(task.train), len(task.validation), len(task.test)] == [55_000, 5_000, 10_000]
    pixels = torch.cat([task.train.inputs, task.validation.inputs])
    levels = torch.bincount(pixels.flatten(), minlength=256).double() / pixels.numel()
    values = torch.arange(256).double() / 255
    mean = (levels * values).sum()
    assert mean.item() == pytest.approx(0.1307, abs=5e-5)
    assert (levels * (values - mean) ** 2).sum().sqrt().item() == pytest.approx(0.3081, abs=5e-5)
    # Digits 0 to 9 of the test set, as published.
    assert torch.bincount(task.test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
