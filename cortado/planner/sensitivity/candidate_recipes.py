"""Candidate recipes for one weight ("prune/weights keep=0.3 | share/kmeans bits=4").

Each is applied to all weights of a copy at once; the results are read weight by weight, so nothing here knows a method.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence

from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, start
from cortado.errors import NothingChanged
from cortado.methods.method import Method
from cortado.network.weight import Weight, parameter_places
from cortado.parts.forms.attach import form_of
from cortado.task.task import Task

CODES = ("share/kmeans bits=3", "quantize/weights bits=4 symmetric=false")
"""Recipes for the factors of low-rank weights."""
CANDIDATE_RECIPES = (
    *(f"quantize/weights bits={bits}" for bits in (8, 7, 6, 5, 4, 3)),
    *(f"quantize/weights bits={bits} symmetric=false" for bits in (4, 3, 2)),
    *(f"quantize/weights bits={bits} per=tensor clip=range" for bits in (7, 6, 5, 4)),
    *(f"share/kmeans bits={bits} start=density" for bits in (5, 4, 3, 2, 1)),
    *(
        f"prune/weights keep={keep} | share/kmeans bits={bits}"
        for keep in (0.7, 0.5, 0.3, 0.2, 0.1)
        for bits in (4, 3, 2)
    ),
    *(f"factorize/svd rank={rank} | {codes}" for rank in (4, 8, 16, 32, 64, 128) for codes in CODES),
)
"""The default candidates: weights only, no training."""


def carried_out(
    network: nn.Module, original: nn.Module, task: Task, candidate_recipes: Sequence[str]
) -> Iterator[tuple[str, list[Weight]]]:
    """Yield each candidate recipe with the weights that it changes.

    Stages shared with the previous recipe are not run again: memory for one copy of the network per stage of a recipe.
    """
    kept: list[tuple[Method, nn.Module, set[str]]] = []
    for way in candidate_recipes:
        stages = read_recipe(way).stages
        common = 0
        while common < min(len(kept), len(stages) - 1) and kept[common][0] == stages[common]:
            common += 1
        del kept[common:]
        made = copy.deepcopy(kept[-1][1] if kept else network)
        found, chosen = parameter_places(made), kept[-1][2] if kept else None
        for number, stage in enumerate(stages[len(kept) :], len(kept) + 1):
            before = {weight.path: form_of(*weight.places[0]) for weight in found}
            with contextlib.suppress(NothingChanged):
                apply_stage(stage, start(made, original, task.example), task, match_moments=False, check=False)
            found = parameter_places(made)
            changed = {one.path for one in found if form_of(*one.places[0]) is not before.get(one.path)}
            chosen = changed if chosen is None else chosen & changed
            if number < len(stages):
                kept.append((stage, copy.deepcopy(made), chosen))
        yield way, [weight for weight in found if weight.path in (chosen or ())]
