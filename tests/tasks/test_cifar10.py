"""CIFAR-10: from each version, small; and the real set where it is at hand."""

import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cortado.errors import BadTask
from cortado.tasks import cifar10
from cortado.tasks.store import folders

PIXELS = np.random.RandomState(0).randint(0, 256, (6, 4, 3, 32, 32)).astype(np.uint8)  # part, image, ...
LABELS = np.arange(24).reshape(6, 4) % 10


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Five parts of 4 images to train and choose on, 4 for the test result."""
    if "real" not in request.node.name:
        monkeypatch.setattr(cifar10, "TRAIN_COUNT", 17)
        monkeypatch.setattr(cifar10, "VALIDATION_COUNT", 3)


def python_batch(part: int) -> bytes:
    return pickle.dumps({b"data": PIXELS[part].reshape(4, 3072), b"labels": LABELS[part].tolist()}, 2)


def binary_batch(part: int) -> bytes:
    rows = zip(LABELS[part].tolist(), PIXELS[part], strict=True)
    return b"".join(bytes([label]) + image.tobytes() for label, image in rows)


def sheets(part: int) -> bytes:
    picture = Image.new("RGB", (1280, 800))
    for place, image in enumerate(PIXELS[part]):
        picture.paste(Image.fromarray(image.transpose(1, 2, 0)), (place * 32, 0))
    drawn, stream = io.BytesIO(), io.BytesIO()
    picture.save(drawn, "PNG")
    np.savez(stream, y=LABELS[part], sheet0=np.frombuffer(drawn.getvalue(), np.uint8))
    return stream.getvalue()


def archive(path: Path, parts: range = range(6)) -> None:
    with tarfile.open(path, "w:gz") as target:
        for part in parts:
            body = python_batch(part)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{cifar10.BATCHES[part]}")
            member.size = len(body)
            target.addfile(member, io.BytesIO(body))


def write(folder: Path, version: str) -> None:
    inner = {"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin"}.get(version, "")
    (folder / inner).mkdir(parents=True, exist_ok=True)
    for part, name in enumerate(cifar10.BATCHES):
        if version.startswith("python"):
            (folder / inner / name).write_bytes(python_batch(part))
        elif version.startswith("binary"):
            (folder / inner / f"{name}.bin").write_bytes(binary_batch(part))
        elif version == "sheets":
            (folder / cifar10.SHEETS[part]).write_bytes(sheets(part))
    if version == "archive":
        archive(folder / cifar10.ARCHIVE.name)


def check(task: cifar10.Task) -> None:
    images, labels = PIXELS[:5].reshape(20, 3, 32, 32), LABELS[:5].reshape(20)
    assert np.array_equal(task.train.inputs, images[:17])
    assert np.array_equal(task.train.targets, labels[:17])
    assert np.array_equal(task.validation.inputs, images[17:])
    assert np.array_equal(task.validation.targets, labels[17:])
    assert np.array_equal(task.test.inputs, PIXELS[5])
    assert np.array_equal(task.test.targets, LABELS[5])


@pytest.mark.parametrize("version", ["python", "python, flat", "binary", "binary, flat", "archive", "sheets"])
def test_cifar10_reads_each_version(data_folder, version):
    write(data_folder / "cifar10", version)
    check(cifar10.task())


def test_cifar10_downloads_and_then_reads_the_cache(data_folder, monkeypatch):
    archive(data_folder / cifar10.ARCHIVE.name)
    body = (data_folder / cifar10.ARCHIVE.name).read_bytes()
    home = (data_folder / cifar10.ARCHIVE.name).as_uri()
    monkeypatch.setattr(
        cifar10,
        "ARCHIVE",
        replace(cifar10.ARCHIVE, urls=(home,), sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body)),
    )
    check(cifar10.task())
    monkeypatch.setattr(cifar10, "ARCHIVE", replace(cifar10.ARCHIVE, urls=()))
    check(cifar10.task())


def test_cifar10_says_what_to_do_when_offline(data_folder, monkeypatch):
    home = (data_folder / "nowhere").as_uri()
    monkeypatch.setattr(cifar10, "ARCHIVE", replace(cifar10.ARCHIVE, urls=(home,)))
    with pytest.raises(BadTask, match=r"needs the file cifar-10-python.tar.gz.*set CORTADO_DATA"):
        cifar10.task()


def test_cifar10_augments_training_images_unless_told_not_to(data_folder):
    write(data_folder / "cifar10", "binary")
    task = cifar10.task()
    assert task.validation.augment is None
    assert task.test.augment is None
    original = cifar10.task(augment=False)
    assert original.train.augment is None
    varied, targets = next(task.train.batches(17, task.generator()))
    still, same_targets = next(original.train.batches(17, task.generator()))
    assert torch.equal(targets, same_targets)
    assert varied.shape == still.shape == (17, 3, 32, 32)
    assert not torch.equal(varied, still)


def test_cifar10_refuses_missing_and_broken_parts(data_folder):
    folder = data_folder / "cifar10"
    write(folder, "python")
    (folder / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(BadTask, match="test_batch cannot be read"):
        cifar10.task()
    (folder / "cifar-10-batches-py" / "data_batch_1").unlink()
    archive(folder / cifar10.ARCHIVE.name, range(4))
    with pytest.raises(BadTask, match=r"lacks data_batch_5, test_batch"):
        cifar10.task()
    body = (folder / cifar10.ARCHIVE.name).read_bytes()
    (folder / cifar10.ARCHIVE.name).write_bytes(body[: len(body) // 2])
    with pytest.raises(BadTask, match="cifar-10-python.tar.gz cannot be read"):
        cifar10.task()


def test_cifar10_passes_over_members_larger_than_any_batch(data_folder, monkeypatch):
    write(data_folder / "cifar10", "archive")
    monkeypatch.setattr(cifar10, "MOST_BYTES", 1000)
    with pytest.raises(BadTask, match="lacks data_batch_1"):
        cifar10.task()


def test_cifar10_refuses_a_lost_image(data_folder):
    write(data_folder / "cifar10", "binary")
    path = data_folder / "cifar10" / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[3073:])
    with pytest.raises(BadTask, match="must have 20 images, got 19"):
        cifar10.task()


def real_folder() -> Path | None:
    names = (cifar10.SHEETS[0], cifar10.ARCHIVE.name, f"cifar-10-batches-py/{cifar10.BATCHES[0]}")
    places = (folder for folder in folders("cifar10") if any((folder / name).is_file() for name in names))
    return next(places, None)


@pytest.mark.skipif(real_folder() is None, reason="CIFAR-10 is not here")
def test_cifar10_real_set_has_the_published_moments():
    task = cifar10.task()
    assert [len(task.train), len(task.validation)] == [45_000, 5_000]
    assert len(task.test) in (1_000, 10_000)
    targets = torch.cat([task.train.targets, task.validation.targets])
    assert torch.bincount(targets).tolist() == [5_000] * 10
    means = torch.zeros(3, dtype=torch.float64)
    for data in (task.train, task.validation):
        for batch in data.inputs.split(5_000):
            means += batch.sum((0, 2, 3), dtype=torch.int64).double() / (255 * 1024 * 50_000)
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    # The first images of the published training set: frog, truck, truck, deer, automobile.
    assert task.train.targets[:5].tolist() == [6, 9, 9, 4, 1]
    assert task.test.targets[:5].tolist() == [3, 8, 8, 0, 6]
