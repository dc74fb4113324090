"""Currency: what a change of a weight costs, in nats between the original network's answers and the changed one's.

The diagonal of the generalised Gauss-Newton matrix at softmax temperature 2, on what a change does once each output
channel has its mean and variance back, as `match_moments` gives them: an output moves by D (x - mean of x) then. Of an embedding,
whose outputs nothing gives back, the mean change counts by itself.
"""

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.engine.stage import apply_stage, start
from cortado.errors import NothingChanged
from cortado.importance.curvature import Curvature
from cortado.methods.match_moments import NOTHING, MatchMoments, layers_before_norms
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.compare.divergence import divergence_for
from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import call_with, undisturbed
from cortado.network.statistics.activations import patches
from cortado.network.statistics.gradients import released
from cortado.network.view import View, Weight, parameter_places
from cortado.parts.forms.attach import original_class
from cortado.parts.forms.form import Form
from cortado.planner.search.deadline import Deadline
from cortado.task.task import Data, Task, to_device

RESCALED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose outputs are matched, with their weight's rows as output channels, if a bias or a batch norm can do it."""
SAMPLES, POSITIONS, MOMENT_SAMPLES = 128, 16, 64
"""Samples for the curvature; positions and samples for what layers read."""
FEWEST_SAMPLES, PRICED = 16, 0.3
"""So many samples are looked at even if this share of the time of a forecast has passed."""
MOMENT_SHARE = 0.02
"""Of the time of a forecast, for one pass over the samples for what layers read."""
PILOTS = (QuantizeWeights(bits=4, clip="range"), PruneWeights(keep=0.7))
"""Done to all weights to see whether matching biases helps a network; the second where the first changes nothing."""


@dataclass(frozen=True)
class Sensitivity:
    """Of one weight: `curvature` of its entries, in its shape, and rows (count, inputs) that its layer reads, None where
    the layer's outputs are not matched; `normed` where a batch norm behind the layer gives the spread back, whatever the
    weight's form. Of an embedding `lookups`, as nothing gives the mean of its outputs back.
    """

    curvature: Tensor
    rows: Tensor | None = None
    groups: int = 1
    normed: bool = True
    lookups: "Lookups | None" = None

    def predicted_kl(self, original: Tensor, changed: Tensor, form: Form | None = None) -> float:
        """Half the sum of curvature x squared change, with the spread of each output given back first where it will be.

        Without a norm behind the layer it is the scales of `form` that give it back, if it has some.
        Nats, up to the network's one constant (see `Plan`). `original` and `changed` are of the weight's shape.
        """
        change = (self.given_back(original, changed, form) - original).double()
        if self.lookups is None:
            return float(0.5 * (self.curvature * change.square()).sum())
        mean = self.lookups.usage @ change
        moved = 0.5 * float((self.lookups.slopes @ mean).square().mean())
        return moved + float(0.5 * (self.curvature * (change - mean).square()).sum())

    def given_back(self, original: Tensor, changed: Tensor, form: Form | None = None) -> Tensor:
        """The changed weight with each output scaled to the standard deviation that it had, where match will do it."""
        if self.rows is None or not (self.normed or form is None or can_scale(form)):
            return changed
        ratio = self.outputs(original).std(0) / self.outputs(changed).std(0)
        usable = torch.isfinite(ratio) & (ratio > 0)
        return changed * torch.where(usable, ratio, 1.0).view(-1, *[1] * (changed.dim() - 1)).to(changed)

    def shift(self, original: Tensor, given: Tensor) -> Tensor | None:
        """What each output of a weight that was given back lacks of its mean; None where match gives none back."""
        return None if self.rows is None else self.outputs(original - given).mean(0)

    def outputs(self, weight: Tensor) -> Tensor:
        """(count, outputs): what the layer gives on the rows."""
        assert self.rows is not None
        rows = self.rows.view(len(self.rows), self.groups, -1).transpose(0, 1)
        outputs = rows @ weight.to(rows).reshape(self.groups, -1, rows.shape[-1]).mT
        return outputs.transpose(0, 1).flatten(1)


@dataclass
class Lookups:
    """How an embedding is read: `usage` (rows,), the share of lookups that go to each row, and `slopes` (samples, width),
    each sample's gradient with respect to one shift of all that it looks up.

    What all rows change by, as rounding changes rows that are alike, does not average out over a sentence as noise does:
    it is judged as the one shift that it is, with all products of its entries, and the curvature is left the rest.
    """

    usage: Tensor
    slopes: Tensor


class Reading:
    """Gathers lookups, sample by sample, of the embeddings among some layers that share no weight."""

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
        """The gradient of one sample with respect to the whole weight."""
        if path in self.slopes:
            whole = slopes.sum(0)
            self.slopes[path].append(whole.double())
            self.matmul_layers[path] = self.matmul_layers[path] + slopes * whole

    def centre(self, path: str, squares: Tensor) -> Lookups | None:
        """How the embedding at `path` was read; `squares`, the sum of its squared gradients (rows, width), becomes that of
        gradients with respect to what each row differs from the mean of all lookups.  None for what is no embedding.
        """
        if not self.slopes.get(path) or not self.counts[path].any():
            return None
        usage, slopes = self.counts[path] / self.counts[path].sum(), torch.stack(self.slopes[path])
        column = usage[:, None]
        squares += column.square() * slopes.square().sum(0) - 2 * column * self.matmul_layers[path]
        squares.clamp_(min=0)
        return Lookups(usage, slopes)


def can_scale(form: Form) -> bool:
    """Whether the rows of a weight held in this form can be scaled, as `match_moments` does it."""
    return form.scale_rows(torch.ones(form.shape[0]))


def sensitivities(
    view: View, weights: list[Weight], task: Task, samples: int = SAMPLES, deadline: Deadline | None = None
) -> dict[str, Sensitivity]:
    """Return the price of each weight, by its path, from FEWEST_SAMPLES or more where a deadline comes before all of them.

    In memory for the weights and one sample, however many there are.
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
    """Whether the outputs of a weight's layer get their moments back: from a batch norm behind it, or else its bias."""
    if original_class(weight.layer) not in RESCALED or weight.name != "weight" or len(weight.places) > 1:
        return False
    return weight.layer_path in normed or weight.layer._parameters.get("bias") is not None


def biases_help(view: View, task: Task, images: int = MOMENT_SAMPLES) -> bool:
    """Whether `match_moments` will move the biases of layers that no batch norm follows, tried on a network that is rounded.  Of
    transformers it will not, as a rule: its answers come no nearer."""
    match = MatchMoments(images=images)
    wanted = match.wanted(View(view.network, view.original, view.example, reference=view.network), task)
    for pilot in PILOTS:
        made = copy.deepcopy(view.network)
        with contextlib.suppress(NothingChanged):
            apply_stage(pilot, start(made, view.original, view.example), task, match_moments=False, check=False)
        without, both = match.toward(View(made, view.original, view.example, reference=view.network), task, wanted)
        if without > NOTHING:
            return both <= without
    return True


def rows_read(view: View, weights: list[Weight], task: Task, images: int = MOMENT_SAMPLES) -> dict[str, Tensor]:
    """What the layer of each weight reads at its first call: (rows, inputs x taps) of float32, by the path of its weight."""
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
    """The mean square of each entry's gradient, with respect to the weight on inputs less their means, float64; and how
    embeddings are read."""
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
            if count >= FEWEST_SAMPLES and count < len(data) and deadline.over(PRICED):
                deadline.left_out.append(f"{len(data) - count} of {len(data)} samples for sensitivities")
                break
    finally:
        for hook in (*hooks, *reading.hooks):
            hook.remove()
    read = {weight.path: reading.centre(weight.path, total) for weight, total in zip(chosen, sums, strict=True)}
    lookups = {path: one for path, one in read.items() if one is not None}
    return [total / count for total in sums], lookups


def centred_gradient(slopes: Tensor, shift: Tensor | None, mean: Tensor | None) -> Tensor:
    """The gradient of a weight less that of each output's shift times the mean of what it reads."""
    if shift is None or mean is None:
        return slopes
    rows = mean.view(-1, slopes[0].numel())
    each = rows.repeat_interleave(len(slopes) // len(rows), 0)
    return slopes - (shift[:, None] * each).view_as(slopes)


def shifting(shift: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook that adds a shift to each output channel of a linear layer or convolution."""

    def hook(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        kernel = layer.__dict__.get("kernel_size", ())
        return output + shift.view(-1, *[1] * len(kernel))

    return hook
