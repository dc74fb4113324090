"""Batches: what a step is made of: this process's share of inputs and targets, and what the teachers give."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from cortado.running.trees import sample_count, to_device
from cortado.task.task import Task
from cortado.training.answers import Answers
from cortado.training.cache import Cache
from cortado.training.distributed import Processes
from cortado.training.objectives.objective import Observed
from cortado.training.teachers import Teachers

Batch = tuple[Any, Any, tuple[Observed, ...]]
"""Inputs, targets, and what each teacher gives."""


class Batches:
    """The batches of a training on a device.

    `share` weighs the loss of this process for the present one: 1, unless processes have unequal numbers of samples.
    """

    def __init__(self, task: Task, size: int, device: torch.device, group: Processes) -> None:
        self.task, self.size, self.device, self.group = task, size, device, group
        # Every process drops a last batch that leaves one sample to one of them: batch norm needs a variance.
        rest, self.least = len(task.train) % size, 2 * group.world
        self.drops = 0 < rest < self.least and len(task.train) > rest
        self.steps = max(1, math.ceil(len(task.train) / size) - self.drops)
        self.share = 1.0
        self.teachers: Teachers | None = None
        self.cache: Cache | Answers | None = None

    def teach(self, networks: Sequence[nn.Module], taps: Sequence[str], precision: str) -> Teachers:
        """Ask these networks, whose first one has the taps, for every batch; return them."""
        self.teachers = Teachers(networks, taps, precision, self.device)
        return self.teachers

    def keep(self, where: str) -> None:
        """Keep what the teachers give for data that do not vary.  `where`: auto, memory, file or live."""
        if self.teachers is not None and not self.task.train.varies and where != "live":
            self.cache = Cache(self.task, self.teachers, where)

    def first(self) -> Batch:
        """Return a batch of two samples."""
        inputs, targets = next(self.task.train.original().batches(2))
        return self.on_device(inputs, targets)

    def on_device(self, inputs: Any, targets: Any) -> Batch:
        inputs, targets = to_device(inputs, self.device), to_device(targets, self.device)
        return inputs, targets, self.teachers.observe(inputs) if self.teachers else ()

    def shuffled(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        data = self.task.train if self.cache is None else self.task.train.numbered()
        for inputs, targets in data.batches(self.size, generator):
            whole = sample_count(inputs)
            if self.drops and whole < self.least:
                return
            inputs, targets = self.group.own_share(inputs), self.group.own_share(targets)
            self.share = self.group.world * sample_count(inputs) / whole
            if self.cache is None:
                yield self.on_device(inputs, targets)
                continue
            seen, targets = self.cache.pick(targets, self.device)
            yield to_device(inputs, self.device), to_device(targets, self.device), seen

    def close(self) -> None:
        """Take off the teachers' hooks and remove files."""
        if self.teachers is not None:
            self.teachers.remove()
        if self.cache is not None:
            self.cache.remove()
