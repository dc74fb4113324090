"""Data from loaders and ragged items: what a loader brings is kept, and what it breaks is said."""

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from cortado.errors import BadTask
from cortado.running.trees import sample_count
from cortado.task.data import Data
from cortado.task.disjoint import check_disjoint
from cortado.task.task import Task


class Sentences(Dataset):
    """Sentences of different lengths, as dicts of token numbers and a label; one of them may be broken."""

    def __init__(self, count: int = 10, broken: int = -1, start: int = 0) -> None:
        self.count, self.broken, self.start = count, broken, start

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict:
        if number == self.broken:
            raise OSError("the disk is gone")
        return {"ids": torch.full((number % 3 + 1,), number + self.start), "labels": number}


def padded(items: list) -> dict:
    longest = max(len(item["ids"]) for item in items)
    ids = torch.stack([torch.nn.functional.pad(item["ids"], (0, longest - len(item["ids"]))) for item in items])
    return {"ids": ids, "mask": (ids > 0).long(), "labels": torch.tensor([item["labels"] for item in items])}


def loader(items: Dataset | None = None, **how) -> DataLoader:
    return DataLoader(items or Sentences(), batch_size=4, collate_fn=padded, **how)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels_of(data: Data, *how) -> list[int]:
    return [number for _, targets in data.batches(*how) for number in targets.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_keeps_its_collate_and_workers_and_is_read_in_order(workers):
    data = Data(loader(shuffle=True, num_workers=workers), split="labels")
    assert len(data) == 10 and labels_of(data, 4) == list(range(10))
    inputs, targets = next(data.batches(5))
    assert list(inputs) == ["ids", "mask"] and inputs["ids"].shape == (5, 3) and sample_count(targets) == 5
    picked = data.pick(torch.tensor([7, 2]))
    assert picked.targets.tolist() == [7, 2] and picked.inputs["ids"].shape == (2, 3)
    assert [len(data.first(3)), len(data.original()), len(data.numbered())] == [3, 10, 10]
    assert labels_of(data.numbered(), 4) == list(range(10))


def test_training_goes_through_the_loaders_own_sampler_by_the_tasks_seed():
    data = Data(loader(shuffle=True), split="labels")
    one, again, other = (labels_of(data, 4, seeded(seed)) for seed in (1, 1, 2))
    assert one == again and one != other and sorted(one) == list(range(10))
    assert [sample_count(targets) for _, targets in data.batches(3, seeded())] == [3, 3, 3, 1]
    weighted = WeightedRandomSampler([1.0] + [0.0] * 9, 12)
    assert labels_of(Data(loader(sampler=weighted), split="labels"), 4, seeded()) == [0] * 12
    state = torch.get_rng_state()
    labels_of(data, 4, seeded(3))
    assert torch.equal(state, torch.get_rng_state())


def test_a_sampler_that_chooses_items_chooses_them_everywhere():
    data = Data(loader(sampler=SubsetRandomSampler([8, 1, 5])), split="labels")
    assert len(data) == 3 and labels_of(data, 4) == [1, 5, 8] and sorted(labels_of(data, 4, seeded())) == [1, 5, 8]


def test_the_loaders_batch_size_is_the_tasks():
    parts = [Data(loader(Sentences(start=100 * n)), split="labels") for n in range(3)]
    assert Task(*parts).batch == 4 and Task(*parts, batch=7).batch == 7
    assert check_disjoint(Task(*parts)) == []
    assert list(Task(*parts).example) == ["ids", "mask"]
    pairs = [TensorDataset(torch.rand(6, 2), torch.zeros(6)) for _ in range(3)]
    assert Task(*(DataLoader(one, 3) for one in pairs)).batch == 3 and Task(*pairs).batch == 128


def test_a_worker_that_raises_is_named_and_the_data_can_be_read_again():
    data = Data(loader(Sentences(broken=6), num_workers=1), split="labels")
    for how in ((4,), (4, seeded())):
        with pytest.raises(BadTask, match="batch 2 of the loader raised OSError: .*the disk is gone"):
            labels_of(data, *how)
    assert data.first(6).targets.tolist() == list(range(6))
    with pytest.raises(BadTask, match="item 6 of Sentences raised OSError: the disk is gone"):
        data.first(7)


class Short(SubsetRandomSampler):
    """Promises more than it yields."""

    def __len__(self) -> int:
        return 10


class Tiring(Dataset):
    """A sampler that yields everything once, and less from then on."""

    def __init__(self) -> None:
        self.times = 0

    def __len__(self) -> int:
        return 10

    def __iter__(self):
        self.times += 1
        return iter(range(10 if self.times == 1 else 3))


def test_a_loader_that_ends_early_is_refused():
    with pytest.raises(BadTask, match="its sampler has a length of 10 and yields 3 samples"):
        Data(loader(sampler=Short([1, 2, 3])))
    data = Data(loader(sampler=Tiring()), split="labels")
    with pytest.raises(BadTask, match="the loader ended early, after 1 of 3 batches"):
        labels_of(data, 4, seeded())
    assert labels_of(data, 4) == list(range(10))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


def test_a_stream_is_refused_with_a_way_out():
    with pytest.raises(BadTask, match="Stream can only be read from its start.*a Dataset with a length"):
        Data(DataLoader(Stream()))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, r"a batch must be a pair \(inputs, targets\), got dict\. Pass split="),
        ({"split": "label"}, "split='label' names no part of a batch, which has: ids, mask, labels"),
        ({"split": lambda batch: batch["ids"].nothing}, "split raised AttributeError"),
        ({"split": lambda batch: (batch["ids"], batch["labels"][:2])}, "differ in length, got 4 and 2"),
        ({"split": "labels", "collate": lambda items: items[0].nothing}, "collate raised AttributeError"),
    ],
)
def test_batches_that_are_no_pairs_are_refused(how, words):
    with pytest.raises(BadTask, match=words):
        next(Data(loader(), **how).batches(4))


BOXES = [{"boxes": torch.rand(count, 4), "labels": torch.arange(count)} for count in (2, 0, 3, 1)]


def test_targets_may_be_a_list_with_an_entry_per_sample():
    data = Data(torch.arange(4.0)[:, None], BOXES)
    assert len(data) == 4 and len(data.first(2).targets) == 2
    assert [len(one["labels"]) for one in data.pick(torch.tensor([2, 0])).targets] == [3, 2]
    order = [int(one) for inputs, _ in data.batches(3, seeded()) for one in inputs]
    found = [one for _, targets in data.batches(3, seeded()) for one in targets]
    assert all(torch.equal(one["boxes"], BOXES[number]["boxes"]) for one, number in zip(found, order, strict=True))
    assert Data(torch.zeros(2, 1), ["a b", "c"]).targets == ["a b", "c"]
    assert torch.equal(Data(torch.zeros(2, 1), [3, 4]).targets, torch.tensor([3, 4]))


def test_vary_changes_inputs_and_targets_together_in_training_only():
    def turned(inputs, targets, generator):
        sign = float(torch.randint(0, 2, (), generator=generator)) * 2 - 1
        return inputs * sign, targets * sign

    data = Data(torch.arange(1.0, 9)[:, None], torch.arange(1.0, 9), vary=turned)
    plain = list(data.batches(2))
    assert all(bool((inputs > 0).all()) for inputs, _ in plain)
    varied = list(data.batches(1, seeded()))
    assert any(bool((inputs < 0).all()) for inputs, _ in varied)
    assert all(torch.equal(inputs[:, 0], targets) for inputs, targets in varied)
    assert data.varies and not data.original().varies and data.first(2).varies
    with pytest.raises(BadTask, match="targets vary cannot have numbers"):
        data.numbered()


TREES = {
    "dict": {"ids": torch.arange(4), "mask": torch.ones(4, 2)},
    "tuple": (torch.arange(4), [torch.zeros(number) for number in range(4)]),
    "nested": {"both": (torch.arange(4), torch.zeros(4)), "none": None},
}


@pytest.mark.parametrize("name", list(TREES))
def test_inputs_and_targets_may_be_any_tree(name):
    data = Data(TREES[name], TREES[name])
    inputs, targets = next(data.batches(3))
    assert sample_count(inputs) == sample_count(targets) == 3 and type(inputs) is type(TREES[name])
    assert len(Data(TREES[name], torch.zeros(4), prepare=lambda inputs: {"again": inputs}).first(2)) == 2


@pytest.mark.parametrize(
    ("inputs", "targets", "words"),
    [
        (
            {"a": torch.zeros(3), "b": torch.zeros(4)},
            torch.zeros(3),
            "the inputs have parts of different lengths, got 3, 4",
        ),
        (
            torch.zeros(3),
            {"boxes": BOXES, "number": torch.zeros(3)},
            "the targets have parts of different lengths, got 4, 3",
        ),
        (torch.zeros(3), BOXES, "differ in length, got 3 and 4"),
        ({"a": torch.zeros(())}, torch.zeros(3), "the inputs have no tensor with a sample axis"),
        ("words", torch.zeros(3), "must be tensors, or tuples, dicts, dataclasses or lists of tensors, got str"),
    ],
)
def test_trees_that_do_not_fit_together_are_refused(inputs, targets, words):
    with pytest.raises(BadTask, match=words):
        Data(inputs, targets)
