"""Explained: which way each weight takes within so many bytes, what the best of the other families would cost it there, and
what it would cost to round activations and to cut channels."""

import copy
from dataclasses import dataclass

from torch import nn

from cortado.errors import CortadoError
from cortado.network.view import View
from cortado.planner.allocate.feasibility import family
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve
from cortado.planner.sensitivity.activations import activation_sensitivities, channel_sensitivities
from cortado.planner.sensitivity.candidates import Candidate, Choices
from cortado.quantities import count_text, size_text
from cortado.table import aligned
from cortado.task.task import Task

ACTIVATION_BITS = (8, 6, 4)
CUT = 0.25
"""The share of each group's channels whose price is told."""
DEAREST = 3
"""So many places, or groups, are named."""


@dataclass(frozen=True)
class Reason:
    """One weight: its bytes as floats, the candidate that was taken, and of other families the one that costs least in as
    many bytes; None where none is as small."""

    path: str
    original_bytes: int
    taken: Candidate
    other: Candidate | None

    def text(self) -> str:
        """Why, in a few words."""
        if self.other is None:
            return "nothing else is as small"
        times = self.other.predicted_kl / max(self.taken.predicted_kl, 1e-12)
        return f"{times:.1f}x the nats by {self.other.way or 'leaving it as it is'}"


def reasons(size_accuracy_curve: SizeAccuracyCurve, size_bytes: float) -> list[Reason]:
    """For each weight what the plan of a file of so many bytes does, and what it leaves; none where no plan is as small."""
    plan = size_accuracy_curve.plan(size_bytes)
    return [] if plan is None else [reason_for(one, plan.chosen[one.path]) for one in size_accuracy_curve.choices]


def reason_for(choices: Choices, taken: Candidate) -> Reason:
    """The runner-up: of another family, in no more bytes than what was taken."""
    others = [
        one for one in choices.candidates if one.size_bytes <= taken.size_bytes and family(one.way) != family(taken.way)
    ]
    return Reason(
        choices.path, choices.original_bytes, taken, min(others, key=lambda one: one.predicted_kl, default=None)
    )


def explained(size_accuracy_curve: SizeAccuracyCurve, size_bytes: float) -> str:
    """A table for people, a row for each weight, the dearest in nats first."""
    found = reasons(size_accuracy_curve, size_bytes)
    if not found:
        return f"Weights alone do not fit into {size_text(size_bytes)}: there is nothing to explain."
    total = size_accuracy_curve.kl(sum(one.taken.predicted_kl for one in found))
    scale = total / max(sum(one.taken.predicted_kl for one in found), 1e-30)
    rows = [["weight", "taken", "floats", "file", "mult-adds", "nats", "and the best of the others there"]]
    for one in sorted(found, key=lambda one: -one.taken.predicted_kl):
        matmul_layers = "?" if one.taken.multiply_adds is None else count_text(one.taken.multiply_adds)
        sizes = [size_text(size) for size in (one.original_bytes, one.taken.size_bytes)]
        divergence = f"{one.taken.predicted_kl * scale:.2g}"
        rows.append([one.path, one.taken.way or "as it is", *sizes, matmul_layers, divergence, one.text()])
    title = f"Which method where, in a file of {size_text(size_bytes)} ({total:.3g} nats expected):"
    return f"{title}\n\n{aligned(rows, '<<' + '>' * (len(rows[0]) - 3) + '<')}"


def activation_report(size_accuracy_curve: SizeAccuracyCurve, network: nn.Module, task: Task) -> str:
    """What it would cost to round all that passes between layers, and where most; why not, where it cannot be."""
    lines = ["What passes between layers, rounded (quantize/activations), nothing trained:", ""]
    try:
        for bits in ACTIVATION_BITS:
            line = f"quantize/activations bits={bits} edges={bits} sums={bits}"
            found = activation_sensitivities(network, network, task, line)
            total = sum(found.values())
            dear = sorted(found, key=lambda places: -found[places])[:DEAREST]
            reported = ", ".join(
                f"{places[0][0] or 'the network'} ({found[places] / max(total, 1e-30):.0%})" for places in dear
            )
            lines.append(f"{bits} bits{size_accuracy_curve.kl(total):>10.2g} nats, most by {reported}")
    except CortadoError as error:
        return f"What passes between layers cannot be rounded: {error}"
    return "\n".join(lines)


def channel_report(size_accuracy_curve: SizeAccuracyCurve, network: nn.Module, task: Task) -> str:
    """What it would cost to cut a quarter of each group's channels, those that matter least; why not, where none can be."""
    view = View(copy.deepcopy(network), network, task.example)
    try:
        groups = [group for group in view.groups.free if not group.heads]
        if not groups:
            return f"No channels can be cut. {view.groups.reasons()}".rstrip()
        predicted_kls = channel_sensitivities(view, task, groups)
    except CortadoError as error:
        return f"Channels cannot be cut: {error}"
    rows = [[f"A {CUT:.0%} cut of channels", "of", "nats"]]
    costs = [
        float(units.sort().values[: max(1, round(CUT * group.count))].sum())
        for group, units in zip(groups, predicted_kls, strict=True)
    ]
    for cost, group in sorted(zip(costs, groups, strict=True), key=lambda pair: pair[0]):
        rows.append([group.name, str(group.count), f"{size_accuracy_curve.kl(cost):.2g}"])
    return aligned(rows)
