"""Mix: each weight is held in the way that costs least, within so many bytes for all of them."""

import contextlib
import copy
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, start
from cortado.errors import BadNetwork, BadValue, NothingChanged
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method, knob
from cortado.network.compare.divergence import divergence_for
from cortado.network.view import View
from cortado.planner.allocate.plan import plan_for
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve, chosen, mean_divergences, measured_plans
from cortado.planner.search.candidate_recipes import CANDIDATE_RECIPES
from cortado.planner.search.trials import Trial
from cortado.planner.sensitivity.candidates import choices_for
from cortado.quantities import size_text
from cortado.task.task import Task

INTEGERS = tuple(f"quantize/weights bits={bits}" for bits in (8, 7, 6, 5, 4, 3))
"""Ways that a runtime can compute with in whole numbers: a scale for each output channel, zero at zero."""


@dataclass(frozen=True)
class Mix(Method):
    """Hold each weight in the form that costs least, so that all of them take `size` bytes: the planner's own stage.

    Candidates for every matrix and kernel, and the choice of least predicted KL (cortado.planner). Everything is looked at
    as the network is when the stage begins, so that what was cut and trained before it counts. `size` is of the records of
    the weights that are chosen for; biases and norms are not among them.
    """

    called: ClassVar[str] = "allocate"
    lossy = True

    size: float = knob(0.0, low=0.0, help="bytes that the chosen weights may take in the file")
    candidate_recipes: str = knob(
        "any", one_of=("any", "integers"), help="any form, or only what runs in whole numbers"
    )

    def apply(self, view: View, task: Task) -> None:
        weights = [weight for weight in view.weights(self.where) if len(weight.shape) > 1]
        if not weights:
            raise BadNetwork(
                f"{self.name()}: there is no weight of two or more axes to choose for. Leave the stage out."
            )
        candidate_recipes = CANDIDATE_RECIPES if self.candidate_recipes == "any" else INTEGERS
        choices = choices_for(view, weights, task, candidate_recipes)
        plan = plan_for(choices, self.size)
        if plan is None:
            least = sum(one.candidates[-1].size_bytes for one in choices)
            raise BadValue(
                f"{self.name()}: these weights take {size_text(least)} at the least, more than size={self.size:g} bytes. "
                "Raise size, or make layers narrower before."
            )
        before = copy.deepcopy(view.network)
        for stage in plan.recipe().stages:
            with contextlib.suppress(NothingChanged):
                state = start(view.network, view.original, view.example)
                apply_stage(stage, state, task, match_moments=False, progress=view.progress, check=False)
        view.notes.append(self.charged(view, before, plan.predicted_kl, task))

    def charged(self, view: View, before: nn.Module, predicted_kl: float, task: Task) -> str:
        """What was predicted beside what the mix costs, its moments matched, on validation data."""
        state = replace(start(copy.deepcopy(view.network), view.original, view.example), reference=before)
        made = apply_stage(MatchMoments(), state, task).network
        (kl,) = mean_divergences(before, [made], chosen(task), divergence_for(view.original, task))
        return f"the predicted KLs of this mix add up to {predicted_kl:.3g} nats; measured on validation data it costs {kl:.3g}"


def corrected(
    found: SizeAccuracyCurve | None, trial: Trial, made: nn.Module | None, original: nn.Module, task: Task
) -> SizeAccuracyCurve | None:
    """The forecast with a trial among its measured plans, where that was a mix of the original network, nothing trained."""
    if found is None or made is None or trial.trained:
        return found
    first = read_recipe(trial.recipe).stages[0]
    plan = plan_for(found.choices, first.size) if isinstance(first, Mix) and first.candidate_recipes == "any" else None
    if plan is None or plan.predicted_kl <= 0:
        return found
    return found.with_measured(*measured_plans([plan], [made], original, task, task.validation.first(found.samples)))
