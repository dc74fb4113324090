"""Digits out of scikit-learn."""

import builtins

import pytest
import torch
from sklearn.datasets import load_digits

from cortado.errors import MissingPackage
from cortado.tasks import digits


def test_digits_splits_the_whole_set_without_overlap():
    task = digits.task()
    assert [len(task.train), len(task.validation), len(task.test)] == [1_000, 297, 500]
    parts = (task.train, task.validation, task.test)
    found = torch.cat([part.inputs.reshape(-1, 64) * 16 for part in parts])
    labels = torch.cat([part.targets for part in parts])
    pixels, known = load_digits(return_X_y=True)
    # All 1,797 images differ, so sorting both sides by content compares them as sets.
    rows = sorted((tuple(row), label) for row, label in zip(found.tolist(), labels.tolist(), strict=True))
    assert rows == sorted((tuple(row), label) for row, label in zip(pixels.tolist(), known.tolist(), strict=True))
    assert len({row for row, _ in rows}) == 1_797


def test_digits_are_floats_from_0_to_1():
    inputs = digits.task().train.inputs
    assert inputs.shape == (1_000, 1, 8, 8)
    assert inputs.dtype == torch.float32
    assert (inputs.min().item(), inputs.max().item()) == (0.0, 1.0)


def test_digits_split_is_the_same_for_every_seed():
    one, other = digits.task(seed=1), digits.task(seed=2)
    assert (one.seed, other.seed) == (1, 2)
    assert torch.equal(one.train.inputs, other.train.inputs)
    assert torch.equal(one.test.targets, other.test.targets)


def test_digits_have_all_classes_in_every_part():
    task = digits.task()
    for part in (task.train, task.validation, task.test):
        assert torch.bincount(part.targets, minlength=10).min() >= 10


def test_digits_name_the_extra_when_scikit_learn_is_missing(monkeypatch):
    ordinary = builtins.__import__

    def without_sklearn(name: str, *rest: object) -> object:
        if name.startswith("sklearn"):
            raise ImportError("no sklearn")
        return ordinary(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(MissingPackage, match=r"pip install -e '\.\[demo\]'"):
        digits.task()
