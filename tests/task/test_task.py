"""Data, Score and Task: what is accepted, what is refused, and batches that depend on the seed alone."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cortado.errors import BadTask
from cortado.running.trees import sample_count, to_device
from cortado.task.metric import correct
from cortado.task.task import Data, Metric, Task


class Pairs(Dataset):
    """Samples one by one, as people write them: a tensor and a plain number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3,), float(index)), index % 2


def numbered(count: int = 10, **how: object) -> Data:
    """Sample i holds the number i, and so does its target."""
    return Data(torch.arange(count).float()[:, None], torch.arange(count), **how)


def noisy(inputs: Tensor, generator: torch.Generator) -> Tensor:
    return inputs + torch.rand(inputs.shape, generator=generator) / 2


def task(**changes: object) -> Task:
    return Task(**{"train": numbered(600), "validation": numbered(4), "test": numbered(4), **changes})


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_data_refuses_unequal_lengths():
    with pytest.raises(BadTask, match="differ in length, got 3 and 2"):
        Data(torch.zeros(3, 1), torch.zeros(2))
    with pytest.raises(BadTask, match="differ in length, got 3 and 2"):
        Data((torch.zeros(3, 1), torch.zeros(3, 1)), torch.zeros(2))


def test_data_refuses_no_samples():
    with pytest.raises(BadTask, match="empty, got 0 samples"):
        Data(torch.zeros(0, 1), torch.zeros(0))
    with pytest.raises(BadTask, match="empty, got 0 samples"):
        Data.of(Pairs(0))


def test_data_of_takes_data_pairs_and_datasets():
    data = numbered()
    assert Data.of(data) is data
    from_pair = Data.of((torch.zeros(2, 3), [1, 0]))
    assert torch.equal(from_pair.targets, torch.tensor([1, 0]))
    from_dataset = Data.of(Pairs(4))
    inputs, targets = next(from_dataset.batches(4))
    assert torch.equal(inputs, torch.arange(4.0)[:, None].expand(4, 3))
    assert torch.equal(targets, torch.tensor([0, 1, 0, 1]))


def test_data_reads_items_of_a_dataset_only_when_needed():
    pairs = Pairs(100)
    data, read = Data.of(pairs), []
    original = Pairs.__getitem__
    pairs.__class__ = type("Watched", (Pairs,), {"__getitem__": lambda self, i: (read.append(i), original(self, i))[1]})
    assert len(data) == 100 and read == []
    inputs, targets = next(data.batches(3))
    assert read == [0, 1, 2] and inputs.shape == (3, 3)
    assert torch.equal(next(data.numbered().batches(3))[1], torch.arange(3))
    assert len(data.first(5)) == 5


def test_data_refuses_items_that_do_not_stack():
    class Ragged(Pairs):
        def __getitem__(self, index):
            return torch.zeros(index + 1), 0

    with pytest.raises(BadTask, match="cannot be stacked into a batch"):
        next(Data.of(Ragged(3)).batches(2))


@pytest.mark.parametrize("source", [torch.zeros(3), [1, 2], (1, 2, 3), None, "mnist"])
def test_data_of_refuses_what_it_cannot_read(source):
    with pytest.raises(BadTask, match=rf"got {type(source).__name__}\. Wrap tensors as"):
        Data.of(source)


def test_data_pick_first_and_plain_keep_the_rest():
    data = numbered(prepare=torch.neg, augment=noisy)
    some = data.pick(torch.tensor([7, 2]))
    assert some.inputs.flatten().tolist() == [7, 2]
    assert some.targets.tolist() == [7, 2]
    assert (some.prepare, some.augment) == (torch.neg, noisy)
    assert len(data.first(3)) == 3
    assert len(data.first(99)) == 10
    assert (data.original().prepare, data.original().augment) == (torch.neg, None)


def test_data_pick_follows_every_part_of_a_tuple():
    data = Data((torch.arange(5), torch.arange(5) * 10), torch.arange(5))
    assert len(data) == 5
    first, second = data.pick(torch.tensor([3, 1])).inputs
    assert first.tolist() == [3, 1]
    assert second.tolist() == [30, 10]


def test_batches_go_through_all_samples_in_order():
    batches = list(numbered().batches(4))
    assert [len(targets) for _, targets in batches] == [4, 4, 2]
    assert torch.cat([inputs for inputs, _ in batches]).flatten().tolist() == list(range(10))
    assert torch.cat([targets for _, targets in batches]).tolist() == list(range(10))


def test_batches_shuffle_every_sample_once_and_keep_pairs_together():
    batches = list(numbered(100).batches(32, seeded(0)))
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert inputs.flatten().tolist() == targets.tolist()
    assert sorted(targets.tolist()) == list(range(100))
    assert targets.tolist() != list(range(100))


def test_batches_are_the_same_for_a_seed_and_differ_between_seeds():
    data = numbered(64, augment=noisy)
    one, again, other = (torch.cat([inputs for inputs, _ in data.batches(16, seeded(s))]) for s in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_batches_ignore_the_global_seed():
    data = numbered(64, augment=noisy)
    torch.manual_seed(1)
    one = torch.cat([inputs for inputs, _ in data.batches(16, seeded(3))])
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(one, torch.cat([inputs for inputs, _ in data.batches(16, seeded(3))]))
    assert torch.equal(state, torch.get_rng_state())


def test_batches_go_on_with_the_generator_in_a_second_pass():
    data, generator = numbered(64), seeded(0)
    one, two = (torch.cat([targets for _, targets in data.batches(16, generator)]) for _ in range(2))
    assert not torch.equal(one, two)


def test_batches_prepare_first_and_augment_only_when_shuffled():
    data = numbered(8, prepare=lambda inputs: inputs * 100, augment=noisy)
    ordered, _ = next(data.batches(8))
    assert ordered.flatten().tolist() == [100.0 * index for index in range(8)]
    shuffled, targets = next(data.batches(8, seeded(0)))
    noise = shuffled.flatten() - 100 * targets
    assert (noise > 0).all()
    assert (noise < 0.5).all()


def test_batches_leave_the_samples_alone():
    data = numbered(8, augment=lambda inputs, _: inputs.zero_())
    list(data.batches(3, seeded(0)))
    assert data.inputs.flatten().tolist() == list(range(8))


def test_count_of_and_to_device_take_tensors_and_tuples():
    pair = (torch.zeros(3, 2), torch.zeros(3))
    assert (sample_count(pair), sample_count(pair[0])) == (3, 3)
    assert to_device(pair[0], "meta").device.type == "meta"
    assert [part.device.type for part in to_device(pair, "meta")] == ["meta", "meta"]


def test_correct_counts_the_largest_output():
    outputs = torch.tensor([[0.1, 0.9], [2.0, -1.0], [0.0, 1.0]])
    assert correct(outputs, torch.tensor([1, 1, 1])).tolist() == [1.0, 0.0, 1.0]


def test_score_is_accuracy_in_percent_by_default():
    score = Metric()
    assert (score.name, score.unit, score.scale, score.higher_is_better) == ("accuracy", "%", 100.0, True)
    outputs = torch.eye(4)
    assert score.scale * score.each(outputs, torch.tensor([0, 1, 2, 0])).mean().item() == 75.0


def test_task_makes_data_of_what_it_is_given():
    made = task(train=(torch.zeros(5, 3), [0] * 5), validation=Pairs(3))
    assert [type(part) for part in (made.train, made.validation, made.test)] == [Data] * 3
    assert [len(part) for part in (made.train, made.validation, made.test)] == [5, 3, 4]
    with pytest.raises(BadTask, match="data must be Data"):
        task(test=[1, 2])


def test_task_calibrates_on_the_start_of_train_without_augmentation():
    made = task(train=numbered(600, augment=noisy))
    assert made.calibration.targets.tolist() == list(range(512))
    assert made.calibration.augment is None
    assert len(task(calibration=(torch.zeros(7, 1), [0] * 7)).calibration) == 7


def test_task_example_is_two_prepared_inputs():
    assert task(train=numbered(prepare=torch.neg)).example.flatten().tolist() == [0.0, -1.0]
    several = task(train=Data((torch.zeros(5, 2), torch.ones(5, 3)), torch.zeros(5)))
    assert [tuple(part.shape) for part in several.example] == [(2, 2), (2, 3)]


def test_task_generator_depends_on_seed_and_offset_alone():
    def drawn(made: Task, offset: int = 0) -> list[float]:
        return torch.rand(4, generator=made.generator(offset)).tolist()

    assert drawn(task(seed=1)) == drawn(task(seed=1))
    assert drawn(task(seed=1)) != drawn(task(seed=2))
    assert drawn(task(seed=1)) != drawn(task(seed=1), offset=1)
    assert drawn(task(seed=0), offset=2) != drawn(task(seed=2))


@pytest.mark.parametrize("batch", [-1, -3])
def test_task_refuses_a_batch_below_one(batch):
    with pytest.raises(BadTask, match=f"batch must be at least 1, or 0 for the default, got {batch}"):
        task(batch=batch)


def test_task_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        task().seed = 3


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).mean(1)


LOSSES = {
    "mse_loss": torch.nn.functional.mse_loss,
    "L1Loss": torch.nn.L1Loss(),
    "summed": torch.nn.MSELoss(reduction="sum"),
    "one a sample": squared,
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_loss_without_a_score_is_the_score(name):
    outputs, targets = torch.randn(7, 3, generator=seeded(0)), torch.randn(7, 3, generator=seeded(1))
    score = task(loss=LOSSES[name]).metric
    assert (score.unit, score.scale, score.higher_is_better) == ("", 1.0, False)
    wanted = {"mse_loss": squared(outputs, targets), "one a sample": squared(outputs, targets)}
    wanted |= {"L1Loss": (outputs - targets).abs().mean(1), "summed": ((outputs - targets) ** 2).sum(1)}
    torch.testing.assert_close(score.each(outputs, targets), wanted[name])
    torch.testing.assert_close(score.each(outputs[:1], targets[:1]), wanted[name][:1])


def test_loss_on_nested_outputs_is_taken_sample_by_sample():
    def loss(outputs: dict, targets: Tensor) -> Tensor:
        return (outputs["mean"] - targets).abs().mean() + outputs["rest"][0].square().mean()

    outputs = {"mean": torch.tensor([1.0, 5.0]), "rest": (torch.tensor([[2.0], [3.0]]),)}
    found = task(loss=loss).metric.each(outputs, torch.tensor([0.0, 1.0]))
    assert found.tolist() == [1.0 + 4.0, 4.0 + 9.0]


def test_losses_of_classes_and_scores_that_are_given_stay():
    assert task().metric == Metric() and task(loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1)).metric == Metric()
    given = Metric(name="mine")
    assert task(loss=squared, metric=given).metric is given
    changed = replace(task(loss=squared), loss=torch.nn.functional.l1_loss)
    assert changed.metric.name == "squared", "what was found once is the task's score"
