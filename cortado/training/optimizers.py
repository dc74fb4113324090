"""Optimizers: an optimizer by its name or the user's function, and its learning rate at each step."""

import math
from typing import Any

import torch

from cortado.training.training import Training

FULL = "full_rate"
"""The key of a parameter group under which its learning rate without a schedule is kept."""


def optimizer_of(training: Training, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer of parameter groups."""
    if callable(training.optimizer):
        made: torch.optim.Optimizer = training.optimizer(groups)
    elif training.optimizer == "sgd":
        nesterov = training.momentum > 0
        made = torch.optim.SGD(groups, training.lr, training.momentum, weight_decay=training.decay, nesterov=nesterov)
    else:
        kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
        made = kind(groups, training.lr, weight_decay=training.decay)
    for group in made.param_groups:
        group[FULL] = group["lr"]
    return made


def set_lr(optimizer: torch.optim.Optimizer, training: Training, done: float, total: int) -> None:
    """Set the learning rate after a share `done` (0..1) of `total` steps."""
    schedule, factor = training.schedule, 1.0
    if callable(schedule):
        factor = schedule(done)
    elif schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * done))
    elif schedule == "step":
        factor = 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    if done < training.warmup:
        factor *= (done * total + 1) / (training.warmup * total + 1)
    for group in optimizer.param_groups:
        group["lr"] = group[FULL] * factor
