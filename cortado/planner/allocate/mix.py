"""Mix: a form for each weight with the least total KL within a size."""

import contextlib
import copy
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from cortado.engine.stage import apply_stage, start
from cortado.errors import BadNetwork, BadValue, NothingChanged
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.network.compare.divergence import divergence_for
from cortado.network.view import View
from cortado.planner.allocate.measured_plans import mean_divergences
from cortado.planner.allocate.plan import plan_for
from cortado.planner.allocate.size_accuracy_curve import chosen
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.sensitivity.candidates import choices_for
from cortado.quantities import size_of, size_text
from cortado.task.task import Task

INTEGERS = tuple(f"quantize/weights bits={bits}" for bits in (8, 7, 6, 5, 4, 3))
"""Recipes that integer kernels can run: one scale per output channel, symmetric."""


@dataclass(frozen=True)
class Mix(Method):
    """Give each weight a form so that all together take `size` bytes at the least predicted KL: the planner's own stage.

    Candidates are computed for every matrix and kernel (cortado.planner) of the network as the stage finds it, after earlier
    cuts and training. `size` counts the records of these weights only, without biases and norms.
    """

    called: ClassVar[str] = "allocate"
    lossy = True
    leaves = (Leaves.ZEROS, Leaves.CODES, Leaves.LOW_RANK)

    size: float | str = knob(0.0, low=0.0, help='bytes of the chosen weights in the file, such as "40 KB"')
    candidate_recipes: str = knob(
        "any", one_of=("any", "integers"), help="any form, or only those that integer kernels run"
    )

    @property
    def room(self) -> float:
        """Return the bytes of the chosen weights."""
        return size_of(self.size, self.name())

    def __post_init__(self) -> None:
        super().__post_init__()
        size_of(self.size, self.name())

    def apply(self, view: View, task: Task) -> None:
        weights = [weight for weight in view.weights(self.where) if len(weight.shape) > 1]
        if not weights:
            raise BadNetwork(f"{self.name()}: the network has no weight of two or more axes. Leave the stage out.")
        candidate_recipes = CANDIDATE_RECIPES if self.candidate_recipes == "any" else INTEGERS
        choices = choices_for(view, weights, task, candidate_recipes)
        plan = plan_for(choices, self.room)
        if plan is None:
            least = sum(one.candidates[-1].size_bytes for one in choices)
            raise BadValue(
                f"{self.name()}: these weights take at least {size_text(least)}, more than size={size_text(self.room)}. "
                "Raise size, or narrow layers first."
            )
        before = copy.deepcopy(view.network)
        for stage in plan.recipe().stages:
            with contextlib.suppress(NothingChanged):
                state = start(view.network, view.base, view.example)
                apply_stage(stage, state, task, match_moments=False, progress=view.progress, check=False)
        view.notes.append(self.charged(view, before, plan.predicted_kl, task))

    def charged(self, view: View, before: nn.Module, predicted_kl: float, task: Task) -> str:
        """Return a note with the predicted KL of the mix and the measured one, moments matched, on validation data."""
        state = replace(start(copy.deepcopy(view.network), view.base, view.example), reference=before)
        made = apply_stage(MatchMoments(), state, task).network
        (kl,) = mean_divergences(before, [made], chosen(task), divergence_for(view.original, task))
        return f"predicted KL of this mix: {predicted_kl:.3g} nats; measured on validation data: {kl:.3g}"
