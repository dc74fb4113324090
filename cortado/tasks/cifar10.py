"""CIFAR-10: 32 x 32 colour photographs of ten classes.  Krizhevsky, 2009."""

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.augment import shift_crop_flip
from cortado.tasks.batches import IMAGE_SHAPE, MOST_BYTES, read_binary_batch, read_bounded, read_python_batch
from cortado.tasks.few_labels import few_labels
from cortado.tasks.in_words import with_sentences
from cortado.tasks.pixels import Normalise, checked_images
from cortado.tasks.sheets import read_sheets
from cortado.tasks.store import Remote, download, folders

CLASSES = 10
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# ImageNet's colour statistics, with which the published networks for CIFAR-10 were trained.
NORMALISE = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TRAIN_COUNT, VALIDATION_COUNT = 45_000, 5_000
ARCHIVE = Remote(
    "cifar-10-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    170_498_071,
)
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6)) + ("test_batch",)
SHEETS = tuple(f"cifar10_train_{number}.npz" for number in range(5)) + ("cifar10_test1000.npz",)

Parts = list[tuple[np.ndarray, np.ndarray]]
"""Images and labels of the five training parts, then of the test part."""


def read_archive(path: Path) -> Parts:
    """Read the batches of the published archive in memory; nothing is unpacked to disk."""
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name not in BATCHES or not member.isfile() or member.size > MOST_BYTES:
                    continue
                body = archive.extractfile(member)
                if body is not None:
                    parts[name] = read_python_batch(body.read(), f"{path}, {name}")
    except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise BadTask(f"task: {path} cannot be read: {error}. Download the file again.") from error
    missing = [name for name in BATCHES if name not in parts]
    if missing:
        raise BadTask(f"task: {path} lacks {', '.join(missing)}. Download the file again.")
    return [parts[name] for name in BATCHES]


def read_folder(folder: Path) -> Parts | None:
    """Read the set in any version that the folder has, preferring the full test set; None if it has none."""
    for python in (folder / "cifar-10-batches-py", folder):
        if (python / BATCHES[0]).is_file():
            return [read_python_batch(read_bounded(python / name), str(python / name)) for name in BATCHES]
    for binary in (folder / "cifar-10-batches-bin", folder):
        if (binary / f"{BATCHES[0]}.bin").is_file():
            paths = [binary / f"{name}.bin" for name in BATCHES]
            return [read_binary_batch(read_bounded(path), str(path)) for path in paths]
    if (folder / ARCHIVE.name).is_file():
        return read_archive(folder / ARCHIVE.name)
    if (folder / SHEETS[0]).is_file():
        return [read_sheets(folder / name) for name in SHEETS]
    return None


def read_cifar10() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return training and test images uint8 (N, 3, 32, 32), each with labels int64 (N,).

    The test part has 10,000 images, or 1,000 if only the image sheets are available. Raises BadTask if the set cannot be
    found, downloaded or read.
    """
    found = (read_folder(folder) for folder in folders("cifar10"))
    parts = next((part for part in found if part is not None), None)
    if parts is None:
        parts = read_archive(download("cifar10", ARCHIVE))
    images, labels = (np.concatenate([part[side] for part in parts[:-1]]) for side in (0, 1))
    train = checked_images("CIFAR-10's training set", images, labels, IMAGE_SHAPE, CLASSES)
    if len(images) != TRAIN_COUNT + VALIDATION_COUNT:
        raise BadTask(
            f"task: CIFAR-10's training set must have {TRAIN_COUNT + VALIDATION_COUNT} images, got {len(images)}. "
            "Download the files again."
        )
    return train, checked_images("CIFAR-10's test set", *parts[-1], IMAGE_SHAPE, CLASSES)


def task(
    seed: int = 0, augment: bool = True, labelled: int = 0, words: Any = None, left_out: Sequence[str] = ()
) -> Task:
    """Return the task: train on 45,000 images, validate on the last 5,000 of the training set, test on the test images.

    Inputs are float32 (N, 3, 32, 32), `(pixel / 255 - mean) / std` per channel; in memory they stay uint8. `augment`
    shifts each training image by up to 4 pixels and mirrors half of them (cortado.tasks.augment.shift_crop_flip).
    With `labelled`, only the first so many training images have labels, and all are unlabelled data. With `words`, a text
    encoder ("minilm" or package.module:function), the network gives embeddings that are compared with sentences of the
    classes (cortado.tasks.in_words), and classes in `left_out` do not occur in the training data.
    Raises BadTask if the files cannot be found, downloaded or read.
    """
    (images, labels), (test_images, test_labels) = read_cifar10()
    train = Data(images[:TRAIN_COUNT], labels[:TRAIN_COUNT], NORMALISE, shift_crop_flip if augment else None)
    train, unlabelled = few_labels(train, labelled)
    made = Task(
        train=train,
        unlabelled=unlabelled,
        validation=Data(images[TRAIN_COUNT:], labels[TRAIN_COUNT:], NORMALISE),
        test=Data(test_images, test_labels, NORMALISE),
        seed=seed,
        name="cifar10",
    )
    if words is None and left_out:
        raise BadTask(
            "task: left_out needs words, the text encoder: only sentences name classes without pictures. Write words: minilm."
        )
    return made if words is None else with_sentences(made, NAMES, words, left_out)
