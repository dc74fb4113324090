"""Teachers: a network or an ensemble whose softened outputs train a student."""

import copy
import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadRecipe
from cortado.network.view import View
from cortado.running.devices import own_device
from cortado.task.task import Task, to_device

SLICE = 32
"""Images per teacher batch on a CPU: few enough for its activations to stay in cache."""


def distillation(outputs: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """Return T^2 x KL(soft || outputs at T), averaged over all axes but 1, the classes.

    `outputs`: logits (N, C, ...); `soft`: probabilities at temperature T, same shape.  Hinton, Vinyals, Dean, 2015.
    """
    # A class with probability 0 adds 0, even if both networks mask it with minus infinity.
    logs = functional.log_softmax(outputs / temperature, 1).masked_fill(soft == 0, 0.0)
    return temperature**2 * functional.kl_div(logs, soft, reduction="none").sum(1).mean()


def ensemble(teachers: Sequence[nn.Module], inputs: Any, temperature: float, half: bool = False) -> Tensor:
    """Return the mean of the teachers' softened probabilities, (N, C, ...), without gradients; `half`: in bfloat16."""
    device = own_device(teachers[0]).type
    if half and isinstance(inputs, Tensor) and inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
        outputs = [teacher_outputs(teacher, inputs) for teacher in teachers]
        return torch.stack([functional.softmax(output.float() / temperature, 1) for output in outputs]).mean(0)


def teacher_outputs(teacher: nn.Module, inputs: Any) -> Tensor:
    """Return a teacher's outputs for a batch; for images on a CPU, slice by slice."""
    if isinstance(inputs, tuple):
        return teacher(*inputs)
    if inputs.device.type == "cpu" and inputs.dim() == 4:
        return torch.cat([teacher(few) for few in inputs.split(SLICE)])
    return teacher(inputs)


def softened(
    task: Task, teachers: Sequence[nn.Module], temperature: float, hard: float, soft: float, half: bool = False
) -> Task:
    """Return the task with loss = hard x its own loss + soft x distillation from the teachers.

    Teachers run here once on every training sample, not at every training step; use it for training data without
    augmentation. Memory: one float32 probability per sample and class.
    """
    device = own_device(teachers[0])
    teachers = [copy.deepcopy(teacher).eval() for teacher in teachers]
    answers, owns = [], []
    for inputs, own in task.train.original().batches(256):
        answers.append(ensemble(teachers, to_device(inputs, device), temperature, half).cpu())
        owns.append(own)
    table, targets = torch.cat(answers), torch.cat(owns)

    def loss(outputs: Tensor, index: Tensor) -> Tensor:
        index = index.cpu()
        own = task.loss(outputs, targets[index].to(outputs.device)) if hard else torch.zeros((), device=outputs.device)
        return hard * own + soft * distillation(outputs, table[index].to(outputs.device), temperature)

    return dataclasses.replace(task, train=task.train.numbered(), loss=loss)


def teachers_of(named: Any, view: View) -> list[nn.Module]:
    """Return the networks for `named`: "original", "package.module:maker", a network, or several of those.

    Raises BadRecipe if one cannot be made.
    """
    several = named if isinstance(named, (tuple, list)) else (named,)
    return [teacher_of(one, view) for one in several]


def teacher_of(named: Any, view: View) -> nn.Module:
    if isinstance(named, nn.Module):
        return named
    if named == "original":
        return view.original
    module_name, _, maker = str(named).partition(":")
    try:
        made = getattr(importlib.import_module(module_name), maker)()
    except (ImportError, AttributeError, ValueError) as error:
        raise BadRecipe(
            f"teacher: {named!r} cannot be made ({error}). Write original, or package.module:maker."
        ) from error
    if not isinstance(made, nn.Module):
        raise BadRecipe(f"teacher: {named!r} returned {type(made).__name__}, not a network.")
    return made
