"""Answers that move: a teacher is asked once for each picture, and its maps go where the picture goes."""

import dataclasses

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.task.move import Move
from cortado.task.task import Data, Task
from cortado.training import cache
from cortado.training.loop import train
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training

HOW = Training(epochs=3, lr=0.01, precision="float32")


def network(seed):
    """Two 1 x 1 convolutions, which commute with mirroring."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 4, 1)).eval()


def task(move):
    generator = torch.Generator().manual_seed(3)
    pictures = torch.randn(24, 3, 6, 8, generator=generator)
    train_data = Data(pictures, pictures.argmax(1), vary=move)
    return Task(train_data, (pictures, pictures.argmax(1)), (pictures, pictures.argmax(1)), batch=8, trial=True)


def curves(sees, move=Move(), **knobs):  # noqa: B008
    learned = (TaskLoss(), Logits(), Features(at="0"))
    training = dataclasses.replace(HOW, teacher_sees=sees, **knobs)
    return train(network(1), task(move), training, objectives=learned, teachers=(network(2),)).curves


def test_moved_answers_are_answers_to_moved_pictures(monkeypatch):
    asked = []
    real = cache.Teachers.observe
    monkeypatch.setattr(cache.Teachers, "observe", lambda self, inputs: asked.append(len(inputs)) or real(self, inputs))
    live = curves("same")
    assert sum(asked) > 3 * 24
    asked.clear()
    once = curves("original")
    assert sum(asked) <= 24 + 2 * 2
    for term, values in live.items():
        assert once[term] == pytest.approx(values, rel=1e-4), term


def test_answers_left_where_they_were_teach_something_else(monkeypatch):
    right = curves("original")["features"]
    real = Move.moved
    monkeypatch.setattr(
        Move, "moved", lambda self, values, maps: (real(self, values[0], maps), real(self, values[1], maps), values[2])
    )
    assert curves("original")["features"] != pytest.approx(right, rel=1e-2)


def test_pictures_that_are_augmented_besides_are_refused():
    moving = task(Move())
    moving.train.augment = lambda pictures, generator: pictures.roll(1, -1)
    with pytest.raises(BadValue, match="vary pictures and maps .* by a cortado.Move alone"):
        train(
            network(1), moving, dataclasses.replace(HOW, teacher_sees="original"), objectives=(Logits(),),
            teachers=(network(2),),
        )  # fmt: skip


@pytest.mark.parametrize("move", [Move(zoom=(0.5, 1.0)), Move(shift=0.1)])
def test_places_outside_of_unlabelled_pictures_are_no_answers(move):
    unlabelled = Data(task(None).train.inputs, None, vary=move)
    learned = (Logits(data="unlabelled"),)
    how = dataclasses.replace(HOW, teacher_sees="original")
    with pytest.raises(
        BadValue, match="teacher_sees must be same for unlabelled data with a Move that shows what is out"
    ):
        train(
            network(1), dataclasses.replace(task(None), unlabelled=unlabelled), how, objectives=learned,
            teachers=(network(2),),
        )  # fmt: skip
    inside = dataclasses.replace(task(None), unlabelled=Data(unlabelled.inputs, None, vary=Move(zoom=(1.0, 1.5))))
    train(network(1), inside, how, objectives=learned, teachers=(network(2),))
