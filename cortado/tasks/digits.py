"""Digits: 1,797 handwritten digits, 8 x 8 grey, included in scikit-learn.  Alpaydin and Kaynak, 1998."""

import numpy as np

from cortado.errors import MissingPackage
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.few_labels import few_labels
from cortado.tasks.pixels import checked_images

CLASSES = 10
TRAIN_COUNT, VALIDATION_COUNT = 1_000, 297
BRIGHTEST = 16.0


def task(seed: int = 0, labelled: int = 0) -> Task:
    """Return the task: train on 1,000 images, validate on 297, test on 500; the same split for every seed.

    Inputs are float32 (N, 1, 8, 8) in 0..1. Needs no download and loads in a moment. With `labelled`, only the first so
    many training images have labels, and all are unlabelled data. Raises MissingPackage if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackage(
            "task: digits come with scikit-learn, which is not installed. Run pip install -e '.[demo]' in Cortado's folder."
        ) from error
    pixels, digits = load_digits(return_X_y=True)
    # This generator's numbers are stable across NumPy versions.
    order = np.random.RandomState(0).permutation(len(pixels))
    scaled = (pixels[order] / BRIGHTEST).astype(np.float32).reshape(-1, 1, 8, 8)
    images, labels = checked_images("digits", scaled, digits[order], (1, 8, 8), CLASSES)
    chosen = TRAIN_COUNT + VALIDATION_COUNT
    train, unlabelled = few_labels(Data(images[:TRAIN_COUNT], labels[:TRAIN_COUNT]), labelled)
    return Task(
        train=train,
        unlabelled=unlabelled,
        validation=Data(images[TRAIN_COUNT:chosen], labels[TRAIN_COUNT:chosen]),
        test=Data(images[chosen:], labels[chosen:]),
        seed=seed,
        name="digits",
    )
