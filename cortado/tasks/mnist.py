"""MNIST: handwritten digits, 28 x 28 grey.  LeCun, Cortes and Burges, 1998."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.augment import affine, stored_copies
from cortado.tasks.few_labels import few_labels
from cortado.tasks.idx import read_idx
from cortado.tasks.npy import read_npy_xz
from cortado.tasks.pixels import Normalise, checked_images
from cortado.tasks.store import Remote, download, find

CLASSES = 10
NORMALISE = Normalise(mean=(0.1307,), std=(0.3081,))
TRAIN_COUNT, VALIDATION_COUNT, TEST_COUNT = 55_000, 5_000, 10_000
HOMES = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")

# IDX name: name of the same array as .npy.xz, SHA-256 and bytes of the published .gz.
FILES = {
    "train-images-idx3-ubyte": (
        "mnist_x_train.npy.xz",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        9_912_422,
    ),
    "train-labels-idx1-ubyte": (
        "mnist_y_train.npy.xz",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        28_881,
    ),
    "t10k-images-idx3-ubyte": (
        "mnist_x_test.npy.xz",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        1_648_877,
    ),
    "t10k-labels-idx1-ubyte": (
        "mnist_y_test.npy.xz",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        4_542,
    ),
}


def mnist_path(idx_name: str) -> Path:
    """Return the file with this array in any available format; download it if there is none."""
    packed, sha256, size_bytes = FILES[idx_name]
    zipped = f"{idx_name}.gz"
    found = find("mnist", (packed, zipped, idx_name))
    if found is not None:
        return found
    return download("mnist", Remote(zipped, tuple(home + zipped for home in HOMES), sha256, size_bytes))


def read_mnist(idx_name: str) -> np.ndarray:
    """Return one uint8 array of MNIST: images (N, 28, 28) or labels (N,).  Raises BadTask if it is unavailable or unreadable."""
    path = mnist_path(idx_name)
    return read_npy_xz(path) if path.suffix == ".xz" else read_idx(path)


def half(name: str, prefix: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the training or test half: uint8 images (N, 1, 28, 28) and int64 labels (N,)."""
    pixels, digits = read_mnist(f"{prefix}-images-idx3-ubyte"), read_mnist(f"{prefix}-labels-idx1-ubyte")
    images, labels = checked_images(name, pixels[:, None], digits, (1, 28, 28), CLASSES)
    if len(images) != count:
        raise BadTask(f"task: {name} must have {count} images, got {len(images)}. Download the files again.")
    return images, labels


def task(seed: int = 0, augment: bool = False, copies: int = 0, labelled: int = 0) -> Task:
    """Return the task: train on 55,000 images, validate on the last 5,000 of the training set, test on the 10,000 test images.

    Inputs are float32 (N, 1, 28, 28), `(pixel / 255 - 0.1307) / 0.3081`; in memory they stay uint8. `augment` rotates,
    scales, shears and shifts each training image slightly (cortado.tasks.augment.affine). `copies` does so in advance
    and appends this number of augmented copies to the training set, the same for every seed. With `labelled`, only the
    first so many training images have labels, and all are unlabelled data. Raises BadTask if the files cannot be found,
    downloaded or read.
    """
    images, labels = half("MNIST's training set", "train", TRAIN_COUNT + VALIDATION_COUNT)
    test_images, test_labels = half("MNIST's test set", "t10k", TEST_COUNT)
    vary = partial(affine, background=NORMALISE.black[0]) if augment else None
    train, unlabelled = few_labels(Data(images[:TRAIN_COUNT], labels[:TRAIN_COUNT], NORMALISE, vary), labelled)
    if copies:
        train = stored_copies(train, copies, torch.Generator().manual_seed(1))
    return Task(
        train=train,
        unlabelled=unlabelled,
        validation=Data(images[TRAIN_COUNT:], labels[TRAIN_COUNT:], NORMALISE),
        test=Data(test_images, test_labels, NORMALISE),
        seed=seed,
        name="mnist",
    )
