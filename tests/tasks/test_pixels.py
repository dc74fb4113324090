"""Normalising and checking images."""

import pickle

import numpy as np
import pytest
import torch

from cortado.errors import BadTask
from cortado.tasks.pixels import Normalise, checked_images


def test_normalise_follows_the_formula_by_channel():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = Normalise(mean, std)(pixels)
    expected = (pixels.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert found.dtype == torch.float32
    assert np.allclose(found.numpy(), expected, atol=1e-6)
    assert pixels.dtype == torch.uint8


def test_normalise_knows_its_black():
    normalise = Normalise((0.5, 0.25), (0.5, 0.125))
    assert normalise.black == (-1.0, -2.0)
    assert normalise(torch.zeros(1, 2, 1, 1, dtype=torch.uint8)).flatten().tolist() == [-1.0, -2.0]


def test_normalise_can_be_pickled():
    normalise = Normalise((0.5,), (0.5,))
    assert pickle.loads(pickle.dumps(normalise)) == normalise


def test_checked_gives_tensors():
    images, labels = checked_images("set", np.ones((2, 1, 3, 3), np.uint8), np.array([0, 1], np.uint8), (1, 3, 3), 2)
    assert images.dtype == torch.uint8
    assert images.shape == (2, 1, 3, 3)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((2, 1, 3, 3)), np.array([0]), "one label for each image, got 2 images and labels of shape \\(1,\\)"),
        (np.zeros((2, 1, 3, 3)), np.zeros((2, 1), int), "one label for each image"),
        (np.zeros((2, 3, 3)), np.array([0, 1]), r"must have shape \(1, 3, 3\), got \(3, 3\)"),
        (np.zeros((0, 1, 3, 3)), np.zeros(0, int), "is empty"),
        (np.full((2, 1, 3, 3), np.nan), np.array([0, 1]), "got 18 values that are NaN"),
        (np.full((2, 1, 3, 3), np.inf), np.array([0, 1]), "NaN or infinite"),
        (np.zeros((2, 1, 3, 3)), np.array([0, 2]), "must lie in 0..1, got 2"),
        (np.zeros((2, 1, 3, 3)), np.array([-1, 1]), "must lie in 0..1, got -1"),
    ],
)
def test_checked_refuses_in_words(images, labels, says):
    with pytest.raises(BadTask, match=says):
        checked_images("set", images, labels, (1, 3, 3), 2)
