"""Networks for the tests of runtimes: two inputs, two outputs, and a runtime that is wrong in one sort of layer."""

from pathlib import Path

import torch
from torch import nn

from cortado.runtimes.torch_eager import TorchEager, TorchSession
from cortado.task.task import Data, Metric, Task


class Pair(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 5), nn.Linear(3, 5)

    def forward(self, left, right):
        made = torch.relu(self.left(left))
        return made * self.right(right), made


class OneOfTwo(nn.Module):
    """Two inputs, one output: classes."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, left, right):
        return self.pair(left, right)[0]


def pair_task() -> Task:
    """Made-up samples for OneOfTwo."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(40, 4, generator=generator), torch.randn(40, 3, generator=generator)
    targets = torch.randint(0, 5, (40,), generator=generator)
    parts = [Data((left[a:b], right[a:b]), targets[a:b]) for a, b in ((0, 20), (20, 30), (30, 40))]
    return Task(*parts, metric=Metric(), name="pairs")


class Wrong(TorchEager):
    """Like torch_eager, but its GELU is a ReLU."""

    def lower(self, network: nn.Module, example, folder: Path) -> Path:
        changed = nn.Sequential(network)
        for module in changed.modules():
            for name, child in module._modules.items():
                if isinstance(child, nn.GELU):
                    module._modules[name] = nn.ReLU()
        return super().lower(changed, example, folder)

    def load(self, file: Path, threads: int) -> TorchSession:
        return super().load(file, threads)
