"""Dense-sparse-dense training (Han et al., 2017) against training the same network on for as long.

LeNet-300-100 on MNIST. Both arms start from the same trained network and see the same number of epochs more: one
loses its smallest weights, learns under the mask, gets them back from zero and learns at a tenth of the rate; the
other goes on dense with the same rates. Test errors, means over seeds with the sample deviation of the differences.
"""

from pathlib import Path

from torch import nn

from bench.lottery import spread
from bench.networks import error, trained
from cortado.engine.recipe import Recipe, read_recipe
from cortado.network.view import View, working_copy
from cortado.task.task import Task

SEEDS = [0, 1, 2]
RECIPE = Path(__file__).parents[1] / "recipes" / "dense_sparse_dense.yaml"


def after(original: nn.Module, task: Task, recipe: Recipe, dense: bool) -> float:
    """Test error after the recipe; `dense`: after its trainings alone."""
    network = working_copy(original)
    for stage in recipe.stages:
        if not dense or stage.name() == "finetune":
            stage.apply(View(network, original, task.example), task)
    return error(network, task, task.test)


def run(seeds: list[int]) -> list[dict]:
    """Errors before, after dense-sparse-dense, after as many epochs of dense training."""
    recipe, starts, sparse, dense = read_recipe(RECIPE), [], [], []
    for seed in seeds:
        original, task = trained("LeNet-300-100", seed)
        starts.append(error(original, task, task.test))
        sparse.append(after(original, task, recipe, dense=False))
        dense.append(after(original, task, recipe, dense=True))
    return [
        spread("test error of the trained network", starts),
        spread("test error after dense-sparse-dense", sparse),
        spread("test error after as many epochs, dense throughout", dense),
        spread("dense training's error less dense-sparse-dense's", [b - a for a, b in zip(sparse, dense, strict=True)]),
    ]
