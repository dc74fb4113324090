"""After: a copy of a network after the stages of a recipe, with nothing measured, matched or kept in between."""

from typing import Any

from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.network.view import View, working_copy
from cortado.task.task import Task


def after(original: nn.Module, task: Task, recipe: Any) -> nn.Module:
    """`original` after a recipe, in eval mode."""
    network = working_copy(original)
    for stage in read_recipe(recipe).stages:
        view = View(network, original, task.example)
        stage.apply(view, task)
        network = view.network
    return network.eval()
