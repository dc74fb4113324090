"""Correction: trials of a search teach the size-accuracy curve."""

from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.planner.allocate.measured_plans import measured_plans
from cortado.planner.allocate.mix import Mix
from cortado.planner.allocate.plan import plan_for
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve
from cortado.planner.search.trials import Trial
from cortado.task.task import Task


def corrected(
    found: SizeAccuracyCurve | None, trial: Trial, made: nn.Module | None, original: nn.Module, task: Task
) -> SizeAccuracyCurve | None:
    """Return the curve with a trial added to its measured plans, if that was an untrained mix of the original network."""
    if found is None or made is None or trial.trained:
        return found
    first = read_recipe(trial.recipe).stages[0]
    plan = plan_for(found.choices, first.room) if isinstance(first, Mix) and first.candidate_recipes == "any" else None
    if plan is None or plan.predicted_kl <= 0:
        return found
    data = task.validation.first(found.samples)
    return found.with_measured(*measured_plans([plan], [made], original, task, data, list(found.shifted)))
