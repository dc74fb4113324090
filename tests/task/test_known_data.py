"""Known data: what a network has learned by heart is noticed, what it only does well on is not, and noise makes it like new."""

import dataclasses

import pytest
import torch
from torch import nn

from cortado.task.data import Data
from cortado.task.known_data import FEWEST, Losses, MeanLoss, judged_as_new, mean_loss
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.training import Training


def samples(count, seed, kind):
    """Two classes that overlap, as floats, pictures in bytes or waves."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    values = torch.randn(count, 300, generator=generator) + 0.06 * (2 * labels[:, None] - 1)
    if kind == "pictures":
        return (128 + 40 * values).round().clamp(0, 255).to(torch.uint8).view(count, 3, 10, 10), labels
    if kind == "waves":
        return (3000 * values).round().clamp(-(2**15), 2**15 - 1).to(torch.int16), labels
    return values, labels


def scaled(inputs):
    """Return floats of about deviation 1."""
    return (inputs.float() - inputs.float().mean()) / inputs.float().std()


def task(kind="floats", known=True, count=300):
    """A task whose validation data belong to what networks here are trained on, if `known`."""
    inputs, labels = samples(count, 0, kind)
    more, targets = samples(count, 0 if known else 1, kind)
    if known:
        inputs, labels, more, targets = inputs[:150], labels[:150], more[150:], targets[150:]
    return Task(Data(inputs, labels, scaled), Data(more, targets, scaled), Data(*samples(count, 2, kind), scaled))


def learned(given, both=True, epochs=30):
    """A network that has learned its training data by heart, and `both` its validation data too."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(300, 64), nn.ReLU(), nn.Linear(64, 2))
    parts = [given.train, given.validation] if both else [given.train]
    data = Data(*(torch.cat([getattr(one, side) for one in parts]) for side in ("inputs", "targets")), scaled)
    train(net, dataclasses.replace(given, train=data), Training(epochs=epochs, lr=3e-3))
    return net.eval()


@pytest.mark.parametrize("kind", ["floats", "pictures", "waves"])
def test_known_data_are_replaced_by_copies_with_the_loss_of_new_data(kind):
    given = task(kind)
    net = learned(given)
    judged = judged_as_new(net, given)
    new, before, after = (
        mean_loss(net, data, given).mean for data in (given.test, given.validation, judged.task.validation)
    )
    assert before < 0.1 * new and after == pytest.approx(new, rel=0.1)
    assert "know the validation data by heart" in judged.note and f"its loss is {after:.3g}" in judged.note
    assert torch.equal(judged.task.validation.targets, given.validation.targets)
    assert judged.task.validation.inputs.dtype == given.validation.inputs.dtype
    again = judged_as_new(net, given).task.validation.inputs
    assert torch.equal(again, judged.task.validation.inputs), "the same each time"
    assert judged.task.test is given.test and judged.task.train is given.train


@pytest.mark.parametrize(("known", "both", "epochs"), [(False, False, 30), (True, False, 30), (True, True, 0)])
def test_data_that_are_new_or_no_easier_are_left_alone(known, both, epochs):
    """Held-out data; those of the same source; and a network that has learned nothing at all."""
    given = task(known=known)
    judged = judged_as_new(learned(given, both, epochs), given)
    assert judged.task is given and not judged.note


def test_where_no_noise_can_be_added_other_data_are_asked_for():
    given = task()
    parts = {
        name: Data({"input": data.inputs}, data.targets, scaled_inside)
        for name, data in (("train", given.train), ("validation", given.validation), ("test", given.test))
    }
    net = Named(learned(given))
    judged = judged_as_new(net, dataclasses.replace(given, **parts, calibration=parts["train"]))
    assert "give validation data that it has not seen" in judged.note and judged.task.validation is parts["validation"]


def scaled_inside(inputs):
    return {"input": scaled(inputs["input"])}


class Named(nn.Module):
    """A network that takes its input by name."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input):
        return self.inner(input)


def test_trials_few_samples_and_losses_of_training_mode_tell_nothing():
    given = task()
    net = learned(given)
    assert not judged_as_new(net, given.for_trial()).note
    few = dataclasses.replace(given, test=given.test.first(FEWEST - 1))
    assert not judged_as_new(net, few).note
    odd = dataclasses.replace(given, loss=lambda outputs, targets: outputs["loss"])
    assert judged_as_new(net, odd).task is odd
    endless = dataclasses.replace(given, loss=lambda outputs, targets: outputs.sum() * torch.inf)
    assert judged_as_new(net, endless).task is endless


@pytest.mark.parametrize(
    ("losses", "known"),
    [((0.1, 0.12, 1.0), True), ((0.1, 0.5, 1.0), False), ((0.1, 0.9, 1.0), False), ((1.0, 1.0, 1.02), False),
     ((0.5, 0.1, 1.0), True), ((1.0, 1.0, 0.3), False)],
)  # fmt: skip
def test_known_is_what_costs_no_more_than_training_data_and_surely_less_than_new_ones(losses, known):
    assert Losses(*(MeanLoss(one, 0.01) for one in losses)).known is known
