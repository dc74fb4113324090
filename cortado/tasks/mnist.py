"""MNIST: handwritten digits, 28 x 28 grey.  LeCun, Cortes and Burges, 1998."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.task import Data, Task
from cortado.tasks.augment import affine, stored_copies
from cortado.tasks.idx import read_idx
from cortado.tasks.npy import read_npy_xz
from cortado.tasks.pixels import Normalise, checked_images
from cortado.tasks.store import Remote, download, find

CLASSES = 10
NORMALISE = Normalise(mean=(0.1307,), std=(0.3081,))
TRAIN_COUNT, VALIDATION_COUNT, TEST_COUNT = 55_000, 5_000, 10_000
HOMES = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")

# IDX name: the same array's name as .npy.xz, SHA-256 and bytes of the published .gz.
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
    """The file that holds this array, in whichever format is at hand; downloaded when none is."""
    packed, sha256, size_bytes = FILES[idx_name]
    zipped = f"{idx_name}.gz"
    found = find("mnist", (packed, zipped, idx_name))
    if found is not None:
        return found
    return download("mnist", Remote(zipped, tuple(home + zipped for home in HOMES), sha256, size_bytes))


def read_mnist(idx_name: str) -> np.ndarray:
    """One array of MNIST, uint8: images (N, 28, 28) or labels (N,).  Raises BadTask when it cannot be had or read."""
    path = mnist_path(idx_name)
    return read_npy_xz(path) if path.suffix == ".xz" else read_idx(path)


def half(name: str, prefix: str, count: int) -> tuple[Tensor, Tensor]:
    """The training or the test half: uint8 images (N, 1, 28, 28) and int64 labels (N,)."""
    pixels, digits = read_mnist(f"{prefix}-images-idx3-ubyte"), read_mnist(f"{prefix}-labels-idx1-ubyte")
    images, labels = checked_images(name, pixels[:, None], digits, (1, 28, 28), CLASSES)
    if len(images) != count:
        raise BadTask(f"task: {name} must have {count} images, got {len(images)}. Fetch the files again.")
    return images, labels


def task(seed: int = 0, augment: bool = False, copies: int = 0) -> Task:
    """Train on 55,000 images, choose on the last 5,000 of the training set, test on the 10,000 of the test set.

    Inputs are float32 (N, 1, 28, 28), `(pixel / 255 - 0.1307) / 0.3081`; in memory they stay uint8. `augment` turns,
    scales, shears and shifts each training image a little (cortado.tasks.augment.affine); `copies` does so beforehand:
    the training set is followed by so many varied copies of itself, the same for every seed.
    Raises BadTask when the files cannot be found, fetched or read.
    """
    images, labels = half("MNIST's training set", "train", TRAIN_COUNT + VALIDATION_COUNT)
    test_images, test_labels = half("MNIST's test set", "t10k", TEST_COUNT)
    vary = partial(affine, background=NORMALISE.black[0]) if augment else None
    train = Data(images[:TRAIN_COUNT], labels[:TRAIN_COUNT], NORMALISE, vary)
    if copies:
        train = stored_copies(train, copies, torch.Generator().manual_seed(1))
    return Task(
        train=train,
        validation=Data(images[TRAIN_COUNT:], labels[TRAIN_COUNT:], NORMALISE),
        test=Data(test_images, test_labels, NORMALISE),
        seed=seed,
        name="mnist",
    )
