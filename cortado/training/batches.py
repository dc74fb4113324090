"""Batches: what a step is made of: this process's share of inputs and targets, and what the teachers give."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cortado.errors import BadTask, BadValue
from cortado.running.trees import sample_count, tensors_in, to_device
from cortado.task.collate import in_unlabelled
from cortado.task.data import Data
from cortado.task.move import Move
from cortado.task.task import Task
from cortado.training.answers import Answers
from cortado.training.cache import Cache
from cortado.training.distributed import Processes
from cortado.training.objectives.objective import TRAIN, UNLABELLED, Objective, Observed
from cortado.training.teachers import Teachers
from cortado.training.training import Training

EPOCHS_APART = 7919
"""Between the random numbers of two trainings, which draw one generator for each epoch."""
BESIDE = 500_000
"""From the random numbers of epochs to those of data that are drawn beside them."""


@dataclass(frozen=True)
class TrainingBatch:
    """This process's samples of a batch, and what each teacher gives for them.

    `share` weighs their loss: 1, unless processes have unequal numbers of samples.
    """

    inputs: Any
    targets: Any
    teachers: tuple[Observed, ...] = ()
    share: float = 1.0


Drawn = Mapping[str, TrainingBatch]
"""The batches of one step, by the name of their data: "train", "unlabelled"."""


class DrawnData:
    """The batches of one part of the data on a device."""

    def __init__(self, name: str, data: Data, size: int, device: torch.device, group: Processes) -> None:
        self.data, self.size, self.device, self.group = data, size, device, group
        self.unlabelled = name == UNLABELLED
        # Every process drops a last batch that leaves one sample to one of them: batch norm needs a variance.
        rest, self.least = len(data) % size, 2 * group.world
        self.drops = 0 < rest < self.least and len(data) > rest
        self.steps = max(1, math.ceil(len(data) / size) - self.drops)
        self.teachers: Teachers | None = None
        self.cache: Cache | Answers | None = None

    def keep(self, training: Training) -> None:
        """Keep what the teachers give for data that do not vary, or for varied data as they are without variation.

        Raises BadValue where answers to data as they are do not fit varied ones.
        """
        if self.teachers is None or (training.cache == "live" and not self.data.varies):
            return
        if self.data.varies and training.teacher_sees != "original":
            return
        if self.data.varies:
            self.check_moves()
        with in_unlabelled(self.unlabelled):
            self.cache = Cache(self.data, self.teachers, training.cache)

    @property
    def move(self) -> Move | None:
        """Return what moves inputs and all that belongs to them, if the data are varied by a Move."""
        return self.data.vary if isinstance(self.data.vary, Move) else None

    def check_moves(self) -> None:
        """Raise BadValue if what the teachers give has places, such as pixels, which move with the inputs in unknown ways."""
        shapes = [tuple(one.shape) for one in tensors_in(self.first().teachers) if one.dim() > 2]
        known = self.move is not None and self.data.augment is None
        unknown = [shape for shape in shapes if not known or len(shape) != 4]
        if shapes and not unknown and self.move is not None and self.move.leaves_pictures and self.data.targets is None:
            raise BadValue(
                "training: teacher_sees must be same for unlabelled data with a Move that shows what is outside of pictures "
                f"(zoom {self.move.zoom}, shift {self.move.shift:g}), because no mask tells where a teacher has no answer. "
                "Write teacher_sees: same, or a zoom of 1 and more without shift."
            )
        if unknown or (self.data.vary is not None and self.move is None):
            got = f"shape {unknown[0]}" if unknown else "data with vary"
            raise BadValue(
                f"training: teacher_sees must be same for outputs with places and for vary, got {got}: answers to data as "
                "they are do not fit moved ones. Write teacher_sees: same, use layers and outputs of shape (N, C), or vary "
                "pictures and maps (N, C, H, W) by a cortado.Move alone, with which answers move."
            )

    def first(self) -> TrainingBatch:
        """Return a batch of two samples."""
        with in_unlabelled(self.unlabelled):
            return self.on_device(*next(self.data.original().batches(2)))

    def on_device(self, inputs: Any, targets: Any, share: float = 1.0) -> TrainingBatch:
        inputs, targets = to_device(inputs, self.device), to_device(targets, self.device)
        return TrainingBatch(inputs, targets, self.teachers.observe(inputs) if self.teachers else (), share)

    def epoch(self, generator: torch.Generator) -> Iterator[TrainingBatch]:
        """Yield the batches of one epoch, in random order."""
        with in_unlabelled(self.unlabelled):
            yield from self.drawn(generator)

    def drawn(self, generator: torch.Generator) -> Iterator[TrainingBatch]:
        data = self.data if self.cache is None else self.data.numbered()
        for inputs, targets in data.batches(self.size, generator):
            whole = sample_count(inputs)
            if self.drops and whole < self.least:
                return
            inputs, targets = self.group.own_share(inputs), self.group.own_share(targets)
            share = self.group.world * sample_count(inputs) / whole
            if self.cache is None:
                yield self.on_device(inputs, targets, share)
                continue
            seen, targets = self.cache.pick(targets, self.device)
            inputs, targets = to_device(inputs, self.device), to_device(targets, self.device)
            if self.move is not None:
                maps = self.group.own_share(self.move.drawn(whole, generator))
                inputs, targets, seen = self.move.moved((inputs, targets, seen), maps)
            yield TrainingBatch(inputs, targets, seen, share)


class Batches:
    """The batches of a training: one of the training data a step, and one of the unlabelled data where objectives ask.

    An epoch is a pass over the training data, and the unlabelled data are drawn beside them, without end; where no objective
    reads the training data, it is a pass over the unlabelled data.
    """

    def __init__(self, task: Task, size: int, device: torch.device, group: Processes, seed: int) -> None:
        self.task, self.size, self.device, self.group, self.seed = task, size, device, group, seed
        self.sources: dict[str, DrawnData] = {}
        self.asked: tuple[str, ...] = ()
        self.beside: Iterator[TrainingBatch] = iter(())
        self.teachers: Teachers | None = None

    def open(self, objectives: Sequence[Objective], label: str) -> int:
        """Open what the objectives read, and return the steps of an epoch.  Raises BadTask if the task does not have it."""
        read = {one.data for one in objectives if one.reads} or {TRAIN}
        if UNLABELLED in read and self.task.unlabelled is None:
            names = ", ".join(one.name() for one in objectives if one.data == UNLABELLED)
            raise BadTask(
                f"{label}: the task has no unlabelled data, which {names} learns from. Pass Task(unlabelled=inputs), or leave "
                "out data: unlabelled."
            )
        parts = {TRAIN: self.task.train, UNLABELLED: self.task.unlabelled}
        self.sources = {
            name: DrawnData(name, data, self.size, self.device, self.group)
            for name, data in parts.items()
            if name in read and data is not None
        }
        taught = {one.data for one in objectives if one.taught}
        self.asked = tuple(name for name in self.sources if name in taught or not taught)
        if len(self.sources) > 1:
            self.beside = self.without_end(self.sources[UNLABELLED])
        return next(iter(self.sources.values())).steps

    def teach(
        self, networks: Sequence[nn.Module], taps: Sequence[str], precision: str, learner: nn.Module | None = None
    ) -> Teachers:
        """Ask these networks, whose first one has the taps, for every batch that a taught objective reads; return them."""
        self.teachers = Teachers(networks, taps, precision, self.device, learner)
        for name in self.asked:
            self.sources[name].teachers = self.teachers
        return self.teachers

    def keep(self, training: Training) -> None:
        """Keep what the teachers give, where that is asked for and possible."""
        for source in self.sources.values():
            source.keep(training)

    def first(self) -> Drawn:
        """Return batches of two samples."""
        return {name: source.first() for name, source in self.sources.items()}

    def epoch(self, number: int) -> Iterator[Drawn]:
        """Yield the batches of each step of an epoch, the first of which has number 0."""
        main, *others = self.sources
        for batch in self.sources[main].epoch(self.generator(number)):
            yield {main: batch} | {name: next(self.beside) for name in others}

    def without_end(self, source: DrawnData) -> Iterator[TrainingBatch]:
        """Yield the batches of one pass after the other, each in an order of its own."""
        for number in itertools.count(BESIDE):
            yield from source.epoch(self.generator(number))

    def generator(self, number: int) -> torch.Generator:
        return self.task.generator(EPOCHS_APART * self.seed + number + 1)

    def close(self) -> None:
        """Take off the teachers' hooks and remove files."""
        if self.teachers is not None:
            self.teachers.remove()
        for source in self.sources.values():
            if source.cache is not None:
                source.cache.remove()
