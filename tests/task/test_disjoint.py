"""Disjoint: a test result on data that were learned or chosen on is refused, or warned of where that cannot be known."""

import dataclasses

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from cortado.engine.compress import compress
from cortado.errors import BadTask
from cortado.task import disjoint
from cortado.task.disjoint import check_disjoint
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]


class Long(Dataset):
    """Numbers from a start; more than are read."""

    def __init__(self, start: int, count: int = 600) -> None:
        self.start, self.count = start, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int):
        return torch.tensor([float(self.start + number)]), 0


def drawn(count: int, seed: int, low: int | None = None) -> Data:
    """Points that never repeat, or whole numbers below `low`, which do."""
    generator = torch.Generator().manual_seed(seed)
    if low is not None:
        return Data(torch.randint(low, (count, 1), generator=generator), torch.zeros(count).long())
    return Data(torch.randn(count, 3, generator=generator), torch.zeros(count).long())


def task(**changes) -> Task:
    return Task(**{"train": drawn(600, 1), "validation": drawn(200, 2), "test": drawn(300, 3), **changes})


def test_parts_that_share_nothing_pass_without_a_word():
    assert check_disjoint(task()) == [] and check_disjoint(NET.task()) == []


@pytest.mark.parametrize("name", ["train", "validation", "calibration"])
def test_samples_of_another_part_are_no_test_data(name):
    data = drawn(300, 3)
    again = Data(data.inputs, data.targets, prepare=torch.neg)
    for test in (data, again):
        with pytest.raises(BadTask, match=f"task: the test data are the {name} data.*task.for_trial"):
            check_disjoint(task(**{name: data, "test": test}))


@pytest.mark.parametrize("name", ["train", "validation", "calibration"])
def test_shared_test_samples_are_refused_with_their_number(name):
    data = drawn(300, 3)
    mixed = torch.cat([drawn(200, 9).inputs, data.inputs[250:].clone()])
    with pytest.raises(BadTask, match=f"50 of the 300 test samples are also {name} samples"):
        check_disjoint(task(**{name: (mixed, [0] * 250), "test": data}))


def test_overlapping_slices_of_one_tensor_are_refused():
    points = torch.randn(900, 2)
    parts = [Data(points[a:b], torch.zeros(b - a).long()) for a, b in ((0, 500), (500, 700), (690, 900))]
    with pytest.raises(BadTask, match="10 of the 210 test samples are also validation samples"):
        check_disjoint(Task(*parts))


def test_a_few_copies_are_reported_and_not_refused():
    data = drawn(300, 3)
    near = torch.cat([drawn(200, 2).inputs, data.inputs[:2]])
    assert check_disjoint(task(validation=(near, [0] * 202), test=data)) == [
        "task: 2 of the 300 test samples have the same inputs as some validation samples."
    ]


def test_samples_that_repeat_inside_a_part_may_repeat_between_parts():
    parts = [drawn(count, seed, 1000) for count, seed in ((2000, 1), (500, 2), (500, 3))]
    said = check_disjoint(Task(*parts, calibration=drawn(50, 8)))
    assert [("train" in one, "validation" in one) for one in said] == [(True, False), (False, True)]


def test_subsets_of_one_dataset_are_compared_by_their_numbers():
    items = TensorDataset(torch.zeros(1000, 1), torch.zeros(1000).long())
    parts = [Data(Subset(items, list(range(a, b)))) for a, b in ((0, 600), (600, 800), (800, 1000))]
    calibration = drawn(20, 4)
    assert check_disjoint(Task(*parts, calibration=calibration)) == []
    inner = Subset(Subset(items, list(range(500, 1000))), list(range(290, 490)))
    with pytest.raises(BadTask, match="10 of the 200 test samples are also validation samples"):
        check_disjoint(Task(parts[0], parts[1], inner, calibration=calibration))
    with pytest.raises(BadTask, match="the test data are the train data"):
        check_disjoint(Task(items, parts[1], items, calibration=calibration))


def test_long_datasets_are_warned_of_and_one_read_twice_is_refused():
    calibration = Data(torch.zeros(4, 1) - 1, torch.zeros(4))
    (said,) = check_disjoint(Task(Long(0), Long(2000, 500), Long(4000), calibration=calibration))
    assert "train (Long, 600 samples), validation (Long, 500 samples)" in said and "Make sure" in said
    with pytest.raises(BadTask, match="600 of the 600 test samples are also train samples"):
        check_disjoint(Task(Long(0), Long(2000, 500), Long(0), calibration=calibration))


def test_short_datasets_are_compared_whole():
    with pytest.raises(BadTask, match="10 of the 100 test samples are also validation samples"):
        check_disjoint(Task(Long(500, 200), Long(0, 100), Long(90, 100)))


def test_compress_refuses_shared_test_data_at_once(tmp_path):
    base = NET.task()
    reused = dataclasses.replace(base, test=base.validation)
    with pytest.raises(BadTask, match="the test data are the validation data"):
        compress(NET.make(), reused, "quantize/weights", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    _, report = compress(NET.make(), base.for_trial(), "quantize/weights")
    assert report.warnings == tuple(check_disjoint(base.for_trial())) and "no test" in report.warnings[0]
    assert report.test.compressed == pytest.approx(report.stages[-1].score)


def test_compress_puts_what_cannot_be_known_into_the_report(monkeypatch):
    monkeypatch.setattr(disjoint, "MOST_READ", 10)
    base = NET.task()
    items = TensorDataset(base.test.inputs, base.test.targets)
    _, report = compress(NET.make(), dataclasses.replace(base, test=Data(items)), "quantize/weights")
    assert any("were not compared with train" in one for one in report.warnings)
