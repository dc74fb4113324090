"""Allocation report: the form of each weight at a file size, the KL of the best alternative, and the KL of quantizing
activations and of cutting channels."""

import copy
from dataclasses import dataclass

from torch import nn

from cortado.engine.stage import start, view_of
from cortado.errors import CortadoError
from cortado.planner.allocate.feasibility import family
from cortado.planner.allocate.size_accuracy_curve import SizeAccuracyCurve
from cortado.planner.sensitivity.activations import activation_sensitivities, channel_sensitivities
from cortado.planner.sensitivity.candidates import Candidate, Choices
from cortado.quantities import count_text, size_text
from cortado.table import aligned
from cortado.task.task import Task

ACTIVATION_BITS = (8, 6, 4)
CUT = 0.25
"""The share of each group's channels in the report of cuts."""
DEAREST = 3
"""Number of places to name."""


@dataclass(frozen=True)
class Reason:
    """One weight: its bytes as floats, the chosen candidate, and the best candidate of another family in no more bytes
    (None if there is none)."""

    path: str
    original_bytes: int
    taken: Candidate
    other: Candidate | None

    def text(self) -> str:
        """Return the reason for the choice as a short text."""
        if self.other is None:
            return "no other form is as small"
        times = self.other.predicted_kl / max(self.taken.predicted_kl, 1e-12)
        return f"{times:.1f}x the KL: {self.other.way or 'unchanged'}"


def reasons(size_accuracy_curve: SizeAccuracyCurve, size_bytes: float) -> list[Reason]:
    """Return the choice for each weight in a file of `size_bytes`, with its alternative; [] if no plan is as small."""
    plan = size_accuracy_curve.plan(size_bytes)
    return [] if plan is None else [reason_for(one, plan.chosen[one.path]) for one in size_accuracy_curve.choices]


def reason_for(choices: Choices, taken: Candidate) -> Reason:
    """Return the choice for one weight with the best candidate of another family in no more bytes."""
    others = [
        one for one in choices.candidates if one.size_bytes <= taken.size_bytes and family(one.way) != family(taken.way)
    ]
    return Reason(
        choices.path, choices.original_bytes, taken, min(others, key=lambda one: one.predicted_kl, default=None)
    )


def explained(size_accuracy_curve: SizeAccuracyCurve, size_bytes: float) -> str:
    """Return a table with a row for each weight, by falling KL."""
    found = reasons(size_accuracy_curve, size_bytes)
    if not found:
        return f"Weights alone do not fit into {size_text(size_bytes)}."
    total = size_accuracy_curve.kl(sum(one.taken.predicted_kl for one in found))
    scale = total / max(sum(one.taken.predicted_kl for one in found), 1e-30)
    rows = [["weight", "chosen", "floats", "file", "mult-adds", "KL, nats", "best alternative"]]
    for one in sorted(found, key=lambda one: -one.taken.predicted_kl):
        multiply_adds = "?" if one.taken.multiply_adds is None else count_text(one.taken.multiply_adds)
        sizes = [size_text(size) for size in (one.original_bytes, one.taken.size_bytes)]
        divergence = f"{one.taken.predicted_kl * scale:.2g}"
        rows.append([one.path, one.taken.way or "unchanged", *sizes, multiply_adds, divergence, one.text()])
    title = f"Form of each weight in a file of {size_text(size_bytes)} (expected KL {total:.3g} nats):"
    return f"{title}\n\n{aligned(rows, '<<' + '>' * (len(rows[0]) - 3) + '<')}"


def activation_report(size_accuracy_curve: SizeAccuracyCurve, network: nn.Module, task: Task) -> str:
    """Return the KL of quantizing all activations, untrained, and the places that cost most; or why it is not possible."""
    lines = ["KL of quantized activations (quantize/activations), untrained:", ""]
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
        return f"Activations cannot be quantized: {error}"
    return "\n".join(lines)


def channel_report(size_accuracy_curve: SizeAccuracyCurve, network: nn.Module, task: Task) -> str:
    """Return the KL of cutting the least important quarter of each group's channels; or why it is not possible."""
    view = view_of(start(copy.deepcopy(network), network, task.example))
    try:
        groups = [group for group in view.groups.free if not group.heads]
        if not groups:
            return f"No channels can be cut. {view.groups.reasons()}".rstrip()
        predicted_kls = channel_sensitivities(view, task, groups)
    except CortadoError as error:
        return f"Channels cannot be cut: {error}"
    rows = [[f"channels cut by {CUT:.0%}", "of", "KL, nats"]]
    costs = [
        float(units.sort().values[: max(1, round(CUT * group.count))].sum())
        for group, units in zip(groups, predicted_kls, strict=True)
    ]
    for cost, group in sorted(zip(costs, groups, strict=True), key=lambda pair: pair[0]):
        rows.append([group.name, str(group.count), f"{size_accuracy_curve.kl(cost):.2g}"])
    return aligned(rows)
