"""Optimizers: an optimizer by its name or the user's function, and its learning rate at each step."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from cortado.parts.part import Part
from cortado.training.training import Training

FULL = "full_rate"
"""The key of a parameter group under which its learning rate without a schedule is kept."""
BOUNDS = "bounds"
QUICK = 10.0
WITHIN = 2.0


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


def groups_of(network: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Return the parameter groups of a network's trainable parameters.

    Adam moves every number by about the learning rate at each step, whatever its gradient. The step of a grid is far smaller
    than a weight, and before a batch norm its gradient is next to nothing, but always of one sign, so it would wander to 0 and
    the network end in noise. So its rate is at most `QUICK` of its size for each unit of lr, and it stays within `WITHIN`.
    """
    learning = [one for one in network.parameters() if one.requires_grad]
    parts = [module for module in network.modules() if isinstance(module, Part)]
    units = {id(getattr(part, name)) for part in parts for name in part.units}
    others = [one for one in learning if id(one) not in units]
    return [
        *([{"params": others}] if others else []),
        *(unit_group(one, training) for one in learning if id(one) in units and one.numel()),
    ]


def unit_group(unit: nn.Parameter, training: Training) -> dict[str, Any]:
    """Return the group of a parameter that says how large a unit is."""
    size = unit.detach().abs()
    rate = min(1.0, QUICK * float(size.mean())) if training.optimizer in ("adam", "adamw") else 1.0
    return {"params": [unit], "lr": training.lr * rate, BOUNDS: (unit.detach().sign(), size / WITHIN, size * WITHIN)}


def bound_units(optimizer: torch.optim.Optimizer) -> None:
    """Put units that a step has moved too far from where they began back within bounds; they keep their signs."""
    for group in optimizer.param_groups:
        if BOUNDS in group:
            (unit,), (sign, least, most) = group["params"], group[BOUNDS]
            with torch.no_grad():
                unit.copy_((unit * sign).clamp(least, most) * sign)


def set_lr(optimizer: torch.optim.Optimizer, training: Training, done: float, total: int) -> None:
    """Set the learning rate after a share `done` (0..1) of `total` steps."""
    factor = scheduled(training, done)
    if done < training.warmup:
        factor *= (done * total + 1) / (training.warmup * total + 1)
    for group in optimizer.param_groups:
        group["lr"] = group[FULL] * factor


def scheduled(training: Training, done: float) -> float:
    """Return the factor of the learning rate after a share `done` (0..1) of a training, warmup aside."""
    schedule = training.schedule
    if callable(schedule):
        return float(schedule(done))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 if schedule == "constant" or done < 0.5 else 0.1 if done < 0.75 else 0.01


def stretch_of(training: Training, start: float, end: float) -> Training:
    """Return how to train from one share of a training to another (0..1), as one of several parts with the same schedule."""
    length = end - start

    def factor(done: float) -> float:
        whole = start + done * length
        rising = min(1.0, whole / training.warmup) if training.warmup else 1.0
        return rising * scheduled(training, whole)

    average = max(0.0, end - max(start, 1 - training.average)) / length
    return replace(training, epochs=training.epochs * length, schedule=factor, warmup=0.0, average=average)
