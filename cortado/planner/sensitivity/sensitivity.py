"""Sensitivity: the predicted KL (nats) between the original network's outputs and those after a change of one weight.

The diagonal of the generalised Gauss-Newton matrix at softmax temperature 2, applied to the change that remains once
`match_moments` has restored each output channel's mean and variance: an output moves by D (x - mean of x). The outputs of an
embedding are not restored, so its mean change counts separately.
"""

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cortado.engine.stage import apply_stage, start, view_of
from cortado.errors import NothingChanged
from cortado.importance.curvature import Curvature
from cortado.layers.kinds import is_known_matrix
from cortado.methods.match_moments import NOTHING, MatchMoments, layers_before_norms
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.compare.divergence import divergence_for
from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import call_with, undisturbed
from cortado.network.statistics.activations import patches
from cortado.network.statistics.gradients import released
from cortado.network.view import View
from cortado.network.weight import Weight, parameter_places
from cortado.parts.forms.attach import original_class
from cortado.parts.forms.form import Form
from cortado.planner.sensitivity.deadline import Deadline
from cortado.running.trees import to_device
from cortado.task.data import Data
from cortado.task.task import Task

SAMPLES, POSITIONS, MOMENT_SAMPLES = 128, 16, 64
"""Samples for the curvature; positions and samples for layer inputs."""
FEWEST_SAMPLES, CURVATURE_SHARE = 16, 0.3
"""Samples used in any case, and the share of the time limit after which no more are used."""
MOMENT_SHARE = 0.02
"""Share of the time limit for one pass over the samples for layer inputs."""
PILOTS = (QuantizeWeights(bits=4, clip="range"), PruneWeights(keep=0.7))
"""Changes of all weights that show whether matching biases helps; the second one if the first changes nothing."""


@dataclass(frozen=True)
class Sensitivity:
    """The sensitivity of one weight.

    `curvature` has the weight's shape; `rows` (count, inputs) are inputs of its layer, None if its outputs are not matched;
    `normed`: a batch norm after the layer restores the spread, whatever the weight's form; `lookups`: of an embedding.
    """

    curvature: Tensor
    rows: Tensor | None = None
    groups: int = 1
    normed: bool = True
    lookups: "Lookups | None" = None

    def predicted_kl(self, original: Tensor, changed: Tensor, form: Form | None = None) -> float:
        """Return half the sum of curvature x squared change, after restoring the spread of each output where possible.

        A batch norm after the layer restores it, or else the scales of `form`, if it has any. In nats, up to a constant of
        the network (see `Plan`). `original` and `changed` have the weight's shape.
        """
        change = (self.given_back(original, changed, form) - original).double()
        if self.lookups is None:
            return float(0.5 * (self.curvature * change.square()).sum())
        mean = self.lookups.usage @ change
        moved = 0.5 * float((self.lookups.slopes @ mean).square().mean())
        return moved + float(0.5 * (self.curvature * (change - mean).square()).sum())

    def given_back(self, original: Tensor, changed: Tensor, form: Form | None = None) -> Tensor:
        """Return the changed weight, each output scaled to its original standard deviation if match_moments can do so."""
        if self.rows is None or not (self.normed or form is None or can_scale(form)):
            return changed
        ratio = self.outputs(original).std(0) / self.outputs(changed).std(0)
        usable = torch.isfinite(ratio) & (ratio > 0)
        return changed * torch.where(usable, ratio, 1.0).view(-1, *[1] * (changed.dim() - 1)).to(changed)

    def shift(self, original: Tensor, given: Tensor) -> Tensor | None:
        """Return the mean that each output lost, (outputs,); None if match_moments does not restore it."""
        return None if self.rows is None else self.outputs(original - given).mean(0)

    def outputs(self, weight: Tensor) -> Tensor:
        """Return the layer's outputs on the rows, (count, outputs)."""
        assert self.rows is not None
        rows = self.rows.view(len(self.rows), self.groups, -1).transpose(0, 1)
        outputs = rows @ weight.to(rows).reshape(self.groups, -1, rows.shape[-1]).mT
        return outputs.transpose(0, 1).flatten(1)


@dataclass
class Lookups:
    """The lookups of an embedding: `usage` (rows,), the share of lookups of each row, and `slopes` (samples, width), each
    sample's gradient with respect to a common shift of all rows it looks up.

    A change that all rows share, as from rounding similar rows, does not average out over a sentence as noise does. It is
    judged as one shift with the full matrix of its entries; the diagonal curvature covers the rest.
    """

    usage: Tensor
    slopes: Tensor


class Reading:
    """Records the lookups of untied embeddings, sample by sample."""

    def __init__(self, weights: list[Weight]) -> None:
        chosen = [one for one in weights if original_class(one.layer) is nn.Embedding and len(one.places) == 1]
        self.counts = {one.path: torch.zeros(len(one.layer.weight), dtype=torch.float64) for one in chosen}  # type: ignore[arg-type]
        self.slopes: dict[str, list[Tensor]] = {one.path: [] for one in chosen}
        self.matmul_layers: dict[str, Any] = {one.path: 0.0 for one in chosen}
        self.hooks = [before_call(one.layer, self.counting(one.path)) for one in chosen]

    def counting(self, path: str) -> Callable[[nn.Module, Any], None]:
        def hook(layer: nn.Module, numbers: Tensor) -> None:
            self.counts[path] += torch.bincount(numbers.flatten().cpu(), minlength=len(self.counts[path]))

        return hook

    def note(self, path: str, slopes: Tensor) -> None:
        """Add one sample's gradient with respect to the whole weight."""
        if path in self.slopes:
            whole = slopes.sum(0)
            self.slopes[path].append(whole.double())
            self.matmul_layers[path] = self.matmul_layers[path] + slopes * whole

    def centre(self, path: str, squares: Tensor) -> Lookups | None:
        """Return the lookups of the embedding at `path`, or None if it is not one.

        `squares` (rows, width), the sum of squared gradients, is changed in place to that of gradients with respect to each
        row's deviation from the mean of all lookups.
        """
        if not self.slopes.get(path) or not self.counts[path].any():
            return None
        usage, slopes = self.counts[path] / self.counts[path].sum(), torch.stack(self.slopes[path])
        column = usage[:, None]
        squares += column.square() * slopes.square().sum(0) - 2 * column * self.matmul_layers[path]
        squares.clamp_(min=0)
        return Lookups(usage, slopes)


def can_scale(form: Form) -> bool:
    """Return whether `match_moments` can scale the rows of a weight in this form."""
    return form.scale_rows(torch.ones(form.shape[0]))


def sensitivities(
    view: View, weights: list[Weight], task: Task, samples: int = SAMPLES, deadline: Deadline | None = None
) -> dict[str, Sensitivity]:
    """Return the sensitivity of each weight, by path, from `samples` or, up to a deadline, FEWEST_SAMPLES or more.

    Needs memory for the weights and one sample.
    """
    assert task.calibration is not None
    normed = layers_before_norms(view)
    matched = [weight for weight in weights if is_rescaled(weight, normed)]
    deadline = deadline or Deadline()
    images = deadline.samples(MOMENT_SAMPLES, MOMENT_SHARE)
    if any(weight.layer_path not in normed for weight in matched) and not biases_help(view, task, images):
        matched = [weight for weight in matched if weight.layer_path in normed]
    rows = rows_read(view, matched, task, images)
    means = {path: found.mean(0) for path, found in rows.items()}
    data = task.calibration.first(samples)
    slope = Curvature().slope(task.generator(29), divergence_for(view.original, task))
    curvature, lookups = centred_curvature(view, weights, data, means, slope, deadline)
    return {
        weight.path: Sensitivity(
            found,
            rows.get(weight.path),
            getattr(weight.layer, "groups", 1),
            weight.layer_path in normed,
            lookups.get(weight.path),
        )
        for weight, found in zip(weights, curvature, strict=True)
    }


def is_rescaled(weight: Weight, normed: set[str]) -> bool:
    """Return whether a batch norm after the weight's layer, or its bias, can restore the moments of the outputs."""
    if not is_known_matrix(weight.layer) or weight.name != "weight" or len(weight.places) > 1:
        return False
    return weight.layer_path in normed or weight.layer._parameters.get("bias") is not None


def biases_help(view: View, task: Task, images: int = MOMENT_SAMPLES) -> bool:
    """Return whether `match_moments` moves the biases of layers without a batch norm, tried on a quantized copy.

    In transformers it mostly does not, as their outputs get no closer.
    """
    match = MatchMoments(images=images)
    state = replace(start(view.network, view.base, view.example), reference=view.network)
    wanted = match.wanted(view_of(state), task)
    for pilot in PILOTS:
        made = copy.deepcopy(view.network)
        with contextlib.suppress(NothingChanged):
            apply_stage(pilot, start(made, view.base, view.example), task, match_moments=False, check=False)
        without, both = match.toward(view_of(replace(state, network=made)), task, wanted)
        if without > NOTHING:
            return both <= without
    return True


def rows_read(view: View, weights: list[Weight], task: Task, images: int = MOMENT_SAMPLES) -> dict[str, Tensor]:
    """Return the inputs of each weight's layer at its first call, (rows, inputs x taps) of float32, by the weight's path."""
    assert task.calibration is not None
    generator, found = task.generator(31), dict[str, list[Tensor]]()
    full: set[str] = set()

    def watch(weight: Weight) -> Callable[[nn.Module, Any], None]:
        def seen(layer: nn.Module, activation: Tensor) -> None:
            if weight.path not in full:
                full.add(weight.path)
                found.setdefault(weight.path, []).append(
                    patches(layer, activation.detach(), POSITIONS, generator).cpu()
                )

        return seen

    hooks = [before_call(weight.layer, watch(weight)) for weight in weights]
    try:
        with undisturbed(view.network):
            for inputs, _ in task.calibration.first(images).batches(32):
                full.clear()
                call_with(view.network, to_device(inputs, next(view.network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: torch.cat(parts).float() for path, parts in found.items()}


def centred_curvature(
    view: View,
    weights: list[Weight],
    data: Data,
    means: dict[str, Tensor],
    slope: Callable[[Tensor, Tensor], Tensor],
    deadline: Deadline,
) -> tuple[list[Tensor], dict[str, Lookups]]:
    """Return the mean squared gradient of each entry on centred inputs, float64, and the lookups of embeddings."""
    duplicate = released(view.network)
    by_path = {weight.path: weight for weight in parameter_places(duplicate)}
    chosen = [by_path[weight.path] for weight in weights]
    values = [getattr(weight.layer, weight.name) for weight in chosen]
    shifts = {
        weight.path: torch.zeros(weight.shape[0], requires_grad=True) for weight in chosen if weight.path in means
    }
    hooks = [
        weight.layer.register_forward_hook(shifting(shifts[weight.path])) for weight in chosen if weight.path in shifts
    ]
    sums, reading = [torch.zeros(value.shape, dtype=torch.float64) for value in values], Reading(chosen)
    try:
        for count, (inputs, targets) in enumerate(data.batches(1), 1):  # noqa: B007 - how many were looked at
            scalar = slope(call_with(duplicate, inputs), targets)
            wanted = [*values, *shifts.values()]
            found = torch.autograd.grad(scalar, wanted, allow_unused=True)
            moved = dict(zip(shifts, found[len(values) :], strict=True))
            for total, weight, slopes in zip(sums, chosen, found[: len(values)], strict=True):
                if slopes is not None:
                    reading.note(weight.path, slopes)
                    total += centred_gradient(slopes, moved.get(weight.path), means.get(weight.path)).double().square()
            if count >= FEWEST_SAMPLES and count < len(data) and deadline.over(CURVATURE_SHARE):
                deadline.left_out.append(f"{len(data) - count} of {len(data)} samples for sensitivities")
                break
    finally:
        for hook in (*hooks, *reading.hooks):
            hook.remove()
    read = {weight.path: reading.centre(weight.path, total) for weight, total in zip(chosen, sums, strict=True)}
    lookups = {path: one for path, one in read.items() if one is not None}
    return [total / count for total in sums], lookups


def centred_gradient(slopes: Tensor, shift: Tensor | None, mean: Tensor | None) -> Tensor:
    """Return the gradient of a weight on centred inputs: less that of each output's shift times the mean input."""
    if shift is None or mean is None:
        return slopes
    rows = mean.view(-1, slopes[0].numel())
    each = rows.repeat_interleave(len(slopes) // len(rows), 0)
    return slopes - (shift[:, None] * each).view_as(slopes)


def shifting(shift: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """Return a hook that adds a shift to each output channel of a linear layer or convolution."""

    def hook(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        kernel = layer.__dict__.get("kernel_size", ())
        return output + shift.view(-1, *[1] * len(kernel))

    return hook
