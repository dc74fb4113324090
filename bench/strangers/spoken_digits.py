"""A network for spoken digits, trained here on waves at 8 kHz; each speaker's last recordings choose and test."""

import torch
from torch import Tensor, nn

from bench.strangers.speech import clips, recordings
from cortado import Data, Job, Task

WIDTHS = (32, 64, 96, 128)


class Words(nn.Module):
    """Waves (N, 1, samples) to logits of ten digits (N, 10): four strided convolutions over time, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        sizes = zip((1, *WIDTHS[:-1]), WIDTHS, (40, 9, 9, 9), (10, 4, 3, 2), strict=True)
        self.body = nn.Sequential(
            *(nn.Sequential(nn.Conv1d(one, two, kernel, step, kernel // 2, bias=False), nn.BatchNorm1d(two), nn.ReLU())
              for one, two, kernel, step in sizes)
        )  # fmt: skip
        self.head = nn.Linear(WIDTHS[-1], 10)

    def forward(self, waves: Tensor) -> Tensor:
        return self.head(self.body(waves).mean(2))


def louder_or_later(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Return waves of another loudness, moved by up to 1000 samples, in noise."""
    loud = torch.rand(len(waves), 1, 1, generator=generator) * 1.5 + 0.5
    moved = torch.stack([one.roll(int(torch.randint(0, 1000, (), generator=generator)), 1) for one in waves])
    return loud * moved + 0.005 * torch.randn(waves.shape, generator=generator)


def make_task() -> Task:
    """Return the task: recordings 0 to 4 test, as published, 5 to 9 choose, the others teach."""
    number = recordings()[3]
    train, choose, test = number >= 10, (number >= 5) & (number < 10), number < 5
    return Task(Data(*clips(train), None, louder_or_later), clips(choose), clips(test), name="spoken digits", batch=64)


def job() -> Job:
    """Return the job: the network is trained first."""
    return Job(
        Words, make_task, training={"epochs": 40, "lr": 3e-3, "optimizer": "adamw", "decay": 1e-2, "warmup": 0.05}
    )
