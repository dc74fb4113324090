"""Unlabelled data: inputs alone, from memory or read on demand, and apart from what is held out."""

import dataclasses

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from cortado.engine.compress import Run
from cortado.engine.recipe import read_recipe
from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.disjoint import check_disjoint
from cortado.task.task import Task
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]
POINTS = torch.arange(30.0).reshape(10, 3)


class Alone(Dataset):
    """Inputs without targets, one by one."""

    def __len__(self) -> int:
        return len(POINTS)

    def __getitem__(self, number: int):
        return POINTS[number]


def task(**changes) -> Task:
    def drawn(seed: int) -> Data:
        return Data(torch.randn(300, 3, generator=torch.Generator().manual_seed(seed)), torch.zeros(300).long())

    return Task(drawn(1), drawn(2), drawn(3), **changes)


def whole(data: Data, size: int = 4) -> tuple[torch.Tensor, list]:
    """All inputs in order, and the targets of each batch."""
    batches = list(data.batches(size))
    return torch.cat([inputs for inputs, _ in batches]), [targets for _, targets in batches]


@pytest.mark.parametrize(
    "given",
    [
        POINTS, POINTS.numpy(), Data(POINTS), Alone(), Data(Alone()), TensorDataset(POINTS), DataLoader(Alone(), 5),
        DataLoader(TensorDataset(POINTS), 5), Subset(Alone(), range(10)),
    ],
    ids=["tensor", "array", "data", "dataset", "data of a dataset", "dataset of ones", "loader", "loader of ones", "subset"],
)  # fmt: skip
def test_inputs_alone_come_from_anywhere(given):
    data = task(unlabelled=given).unlabelled
    inputs, targets = whole(data)
    assert torch.equal(inputs, POINTS) and targets == [None] * 3 and len(data) == 10
    assert torch.equal(whole(data.pick(torch.tensor([7, 2])))[0], POINTS[[7, 2]])
    numbers = torch.cat([numbers for _, numbers in data.numbered().batches(4)])
    assert torch.equal(numbers, torch.arange(10))


def test_trees_of_inputs_and_what_objectives_read_stay_as_they_are():
    tree = task(unlabelled={"pixels": POINTS, "mask": POINTS > 3}).unlabelled
    inputs, targets = next(tree.batches(4))
    assert set(inputs) == {"pixels", "mask"} and targets is None
    for given in (Data(POINTS, {"earlier": -POINTS}), Data(TensorDataset(POINTS, -POINTS))):
        inputs, targets = next(task(unlabelled=given).unlabelled.batches(4))
        earlier = targets["earlier"] if isinstance(targets, dict) else targets
        assert torch.equal(inputs, POINTS[:4]) and torch.equal(earlier, -POINTS[:4])


def test_unlabelled_data_are_prepared_augmented_and_varied():
    def vary(inputs, targets, generator):
        assert targets is None
        return inputs * 10, targets

    data = Data(POINTS, prepare=torch.neg, augment=lambda inputs, generator: inputs + 1, vary=vary)
    found = task(unlabelled=data).unlabelled
    shuffled = torch.cat([inputs for inputs, _ in found.batches(4, torch.Generator().manual_seed(0))])
    assert torch.equal(shuffled.sort(0).values, ((1 - POINTS) * 10).sort(0).values)
    assert torch.equal(whole(found)[0], -POINTS)


def test_a_pair_may_mean_two_things_and_is_refused():
    with pytest.raises(
        BadTask, match=r"unlabelled data cannot be a pair.*Data\(\(first, second\)\).*Data\(inputs, targets\)"
    ):
        task(unlabelled=(POINTS, POINTS))


@pytest.mark.parametrize("part", ["train", "validation", "test", "calibration"])
def test_other_parts_need_targets(part):
    with pytest.raises(BadTask, match=r"need targets, got inputs alone.*unlabelled=inputs"):
        dataclasses.replace(task(), **{part: Data(POINTS)})


def test_trials_and_changed_tasks_keep_them():
    made = task(unlabelled=Alone())
    for other in (made.for_trial(), dataclasses.replace(made, seed=3)):
        assert torch.equal(whole(other.unlabelled)[0], POINTS)


def test_training_inputs_may_be_unlabelled_and_held_out_ones_may_not():
    known = task()
    assert check_disjoint(dataclasses.replace(known, unlabelled=known.train.inputs)) == []
    for name in ("validation", "test"):
        inputs = getattr(known, name).inputs
        with pytest.raises(BadTask, match=f"the {name} data are the unlabelled data, so the {name} score"):
            check_disjoint(dataclasses.replace(known, unlabelled=inputs))
        with pytest.raises(BadTask, match=f"300 of the 300 {name} samples are also unlabelled samples"):
            check_disjoint(dataclasses.replace(known, unlabelled=torch.cat([known.train.inputs, inputs])))


def test_an_interrupted_run_notices_other_unlabelled_data():
    def key(task: Task) -> str:
        return Run(NET.make(), task, read_recipe("quantize/weights bits=4")).key

    plain = NET.task()
    others = [dataclasses.replace(plain, unlabelled=plain.train.inputs + shift) for shift in (0, 1)]
    assert len({key(one) for one in (plain, *others)}) == 3
    assert key(others[1]) == key(dataclasses.replace(plain, unlabelled=plain.train.inputs + 1))
