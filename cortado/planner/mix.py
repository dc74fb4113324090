"""Mix: each weight is held in the way that costs least, within so many bytes for all of them."""

import contextlib
import copy
import dataclasses
from dataclasses import dataclass

from torch import nn

from cortado.errors import BadNetwork, BadValue, NothingChanged
from cortado.method import Method, knob
from cortado.methods.match import Match
from cortado.network.divergence import nats_for
from cortado.network.view import View
from cortado.planner.candidates import choices_for
from cortado.planner.forecast import Forecast, chosen, judged, mean_divergences
from cortado.planner.plan import plan_for
from cortado.planner.trials import Trial
from cortado.planner.ways import WAYS
from cortado.recipe import read
from cortado.task import Task
from cortado.units import size_text

INTEGERS = tuple(f"quantize/weights bits={bits}" for bits in (8, 7, 6, 5, 4, 3))
"""Ways that a runtime can compute with in whole numbers: a scale for each output channel, zero at zero."""


@dataclass(frozen=True)
class Mix(Method):
    """The planner's own stage: candidates for every matrix and kernel, and the choice of least damage.

    Everything is looked at as the network is when the stage begins, so that what was cut and tuned before it counts.
    `size` is of the records of the weights that are chosen for; biases and norms are not among them.
    """

    lossy = True

    size: float = knob(0.0, low=0.0, says="bytes that the chosen weights may take in the file")
    ways: str = knob("any", one_of=("any", "integers"), says="any form, or only what runs in whole numbers")

    def apply(self, view: View, task: Task) -> None:
        weights = [weight for weight in view.weights(self.where) if len(weight.shape) > 1]
        if not weights:
            raise BadNetwork("mix: there is no weight of two or more axes to choose for. Leave the stage out.")
        ways = WAYS if self.ways == "any" else INTEGERS
        choices = choices_for(view, weights, task, ways)
        plan = plan_for(choices, self.size)
        if plan is None:
            least = sum(one.candidates[-1].size_bytes for one in choices)
            raise BadValue(
                f"mix: these weights take {size_text(least)} at the least, more than size={self.size:g} bytes. "
                "Raise size, or make layers narrower before."
            )
        before = copy.deepcopy(view.network)
        for stage in plan.recipe().stages:
            with contextlib.suppress(NothingChanged):
                stage.apply(View(view.network, view.plain, view.example, view.progress), task)
        view.notes.append(self.held_to_account(view, before, plan.damage, task))

    def held_to_account(self, view: View, before: nn.Module, damage: float, task: Task) -> str:
        """What was predicted beside what the mix costs, its moments matched, on choice data."""
        made = copy.deepcopy(view.network)
        Match().apply(View(made, view.plain, view.example, view.progress, before), task)
        (kl,) = mean_divergences(before, [made], chosen(task), nats_for(view.plain, task))
        return f"the damages of this mix add up to {damage:.3g} nats; measured on choice data it costs {kl:.3g}"


def corrected(
    found: Forecast | None, trial: Trial, made: nn.Module | None, plain: nn.Module, task: Task
) -> Forecast | None:
    """The forecast with a trial among its measured plans, where that was a mix of the plain network, nothing trained."""
    if found is None or made is None or trial.trained:
        return found
    first = read(trial.recipe).stages[0]
    plan = plan_for(found.choices, first.size) if isinstance(first, Mix) and first.ways == "any" else None
    return found if plan is None or plan.damage <= 0 else found.with_measured(*judged([plan], [made], plain, task))


def mix(size: float, ways: str = "any") -> Method:
    """The stage, with bytes in whole numbers."""
    return dataclasses.replace(Mix(), size=float(round(size)), ways=ways)
