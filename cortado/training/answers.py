"""Answers: what peers give for each training sample, exchanged in the place of their weights."""

from typing import Any

import torch
from torch import nn

from cortado.running.trees import pick, to_device
from cortado.task.data import Data
from cortado.training.cache import BATCH
from cortado.training.objectives.logits import first_tensor
from cortado.training.objectives.objective import Observed
from cortado.training.teachers import Teachers
from cortado.training.trees import joined


class Answers:
    """The peers' present answers to each sample of some data, by its number, and the targets of the samples."""

    def __init__(self, data: Data) -> None:
        self.targets = joined([targets for _, targets in data.original().batches(BATCH)])
        self.seen: tuple[Observed, ...] = ()

    def give(self, seen: tuple[Observed, ...]) -> None:
        """Take new answers in the place of the old ones: one `Observed` a peer, with a row for every sample."""
        self.seen = seen

    def pick(self, numbers: torch.Tensor, device: torch.device) -> tuple[tuple[Observed, ...], Any]:
        """Return the answers to these samples and their targets; no answers before the first exchange."""
        numbers = numbers.cpu()
        return to_device(pick(self.seen, numbers), device), pick(self.targets, numbers)

    def remove(self) -> None:
        """Drop the answers."""
        self.seen = ()


def peer_answers(network: nn.Module, data: Data, precision: str, device: torch.device, asked: bool) -> Observed:
    """Return the first output of a network for every sample, (N, ...) in float32 on the CPU; if not `asked`, zeros for it."""
    teachers = Teachers((network,), (), precision, device)
    found = []
    for inputs, _ in data.original().batches(BATCH):
        (seen,) = to_device(teachers.observe(to_device(inputs, device)), "cpu")
        found.append(first_tensor(seen.outputs))
        if not asked:
            return Observed(found[0].new_zeros((len(data), *found[0].shape[1:])))
    return Observed(torch.cat(found))
