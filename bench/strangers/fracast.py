"""Fracast, a forecaster of time series of 85,001 parameters, from the package fracast; series of seasons, trend and noise."""

import json

import numpy as np
import torch
from torch import Tensor, nn

from bench.strangers.package import file
from cortado import Data, Metric, Numbers, Task

COUNTS = (128, 96, 192)


class Forecaster(nn.Module):
    """Series (N, steps) in 0..1 to nine quantiles of what comes (N, 48, quantiles)."""

    def __init__(self, core: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.core, self.head = core, head

    def forward(self, series: Tensor) -> Tensor:
        values, there = series[:, None], torch.ones_like(series[:, None], dtype=torch.bool)
        hidden = self.core(values, there, there.float())
        return self.head.forward_horizon(hidden, last_obs=values[:, 0, -1:], ctx=values[:, 0], ctx_mask=there[:, 0])


def series(part: int, length: int, horizon: int) -> Data:
    """Return drawn series: two seasons, a trend and noise, each as the network takes it, and what comes next."""
    draw = np.random.default_rng(part)
    time, rows = np.arange(length + horizon), []
    for _ in range(COUNTS[part]):
        periods, sizes, phases = draw.uniform(8, 96, 2), draw.uniform(0.2, 1, 2), draw.uniform(0, 7, 2)
        seasons = sum(s * np.sin(2 * np.pi * time / p + o) for p, s, o in zip(periods, sizes, phases, strict=True))
        rows.append(seasons + draw.normal(0, 1) * time / length + draw.normal(0, 0.1, len(time)))
    made = torch.from_numpy(np.stack(rows)).float()
    low, high = made[:, :length].aminmax(dim=1, keepdim=True)
    made = (made - low) / (high - low)
    return Data(made[:, :length].contiguous(), made[:, length:].contiguous())


def job():
    """Return network and task."""
    from fracast.inference import load_fracast

    folder = file("fracast", "weights")
    settings = json.loads((folder / "config.json").read_text(encoding="utf8"))["model"]
    middle = int(np.argmin(np.abs(np.asarray(settings["quantiles"]) - 0.5)))

    def errors(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[..., middle] - targets).abs().mean(1)

    parts = [series(part, int(settings["W"]), int(settings["horizon"])) for part in range(3)]
    metric = Metric("mean error", "", errors, higher_is_better=False)
    loss = lambda outputs, targets: errors(outputs, targets).mean()  # noqa: E731
    task = Task(*parts, loss=loss, metric=metric, outputs=Numbers(), batch=16, name="series")
    return Forecaster(*load_fracast(folder, "fp32")).eval(), task
