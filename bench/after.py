"""After: a copy of a network after the stages of a recipe, with nothing measured, matched or kept in between."""

from typing import Any

from torch import nn

from cortado.network.view import View, working_copy
from cortado.recipe import read
from cortado.task import Task


def after(plain: nn.Module, task: Task, recipe: Any) -> nn.Module:
    """`plain` after a recipe, in eval mode."""
    network = working_copy(plain)
    for stage in read(recipe).stages:
        stage.apply(View(network, plain, task.example), task)
    return network.eval()
