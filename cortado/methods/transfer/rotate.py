"""transfer/rotate: filters are quarter turns of base filters, up to networks that do not see how a picture is turned."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.methods.method import knob
from cortado.methods.needs import Need
from cortado.methods.transfer.orbits import TURNS, Orbits, in_fours, is_head, orbits_of, places_of
from cortado.methods.transfer.transfer import (
    Transfer,
    every,
    filters_in,
    float_filters,
    make_filters,
    note_left,
    set_copies,
)
from cortado.network.coupling.answers import difference, flat_outputs
from cortado.network.graph.trace import device_of
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.blocks.block import brought_along
from cortado.parts.blocks.orientation_max import OrientationMax
from cortado.parts.blocks.shared_norm import SharedNorm
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.transferred import Transferred
from cortado.parts.forms.transforms import REPEAT, ROLL, ROTATE
from cortado.running.call import call_arguments
from cortado.running.trees import map_tensors, tensors_in, to_device
from cortado.task.task import Task


def with_square_kernels(method: Any, view: View, task: Task) -> list[Weight]:
    """Return the filters that can be turned: on square kernels of two axes, of at least four outputs.

    With `roll`, all that makes the same channels has to be turned, too.
    """
    found = [weight for weight in float_filters(method, view) if can_turn(weight)]
    if not method.roll or not found:
        return [weight for weight in found if weight.layer.groups == 1]
    orbits = orbits_of(view, found)
    return [weight for weight in found if weight.path in orbits.made]


def can_turn(weight: Weight) -> bool:
    """Return whether the filters of a convolution, without groups or depthwise, can be turned."""
    if len(weight.shape) != 4 or weight.shape[2] != weight.shape[3] or weight.shape[0] < TURNS:
        return False
    return weight.layer.groups == 1 or weight.shape[1] == 1  # type: ignore[operator, return-value]


SQUARE = Need(
    "a convolution of plain floats with a square kernel, whose outputs are channels in fours",
    with_square_kernels,
    "transfer filters before other stages",
)


@dataclass(frozen=True)
class TransferRotate(Transfer):
    """Filters come in fours, a base filter and its quarter turns.  Dieleman et al., 2016; Cohen, Welling, 2016.

    With `roll`, a filter that reads such fours takes them in turn as well (the group convolution p4): turn the picture,
    and all feature maps turn with it. Batch norms then share statistics over orientations, and linear layers read the
    largest, or the mean, of a channel's orientations, so that outputs do not change when the picture turns. This is exact
    where, in each convolution and pooling, size + 2 padding - kernel is divisible by the stride. The file has a quarter of
    the weights; each turn is computed as a filter of its own.
    """

    needs = (SQUARE,)

    roll: bool = knob(True, help="take the orientations of inputs in turn: feature maps turn with the picture")
    invariant: str = knob(
        "max", one_of=("max", "mean", "each"), help="with roll: what linear layers read of a channel's orientations"
    )

    def apply(self, view: View, task: Task) -> None:
        weights = SQUARE.require(self, view, task)
        if self.roll:
            self.in_orbits(view, [weight for weight in float_filters(self, view) if can_turn(weight)])
        else:
            make_filters(self, view, filters_in(view, weights), ROTATE, TURNS, task, every(TURNS))

    def in_orbits(self, view: View, weights: list[Weight]) -> None:
        """Turn filters so that feature maps turn with the picture, as far as the network's channels allow."""
        orbits = orbits_of(view, weights)
        made = [weight for weight in weights if weight.path in orbits.made]
        before = sum(weight.shape.numel() for weight in made)
        for weight in made:
            self.turn(weight, orbits)
        heads = [] if self.invariant == "each" else self.heads(view, orbits)
        inside = brought_along(view.network)
        for path in orbits.norms:
            norm = view.network.get_submodule(path)
            if id(norm) not in inside:
                view.wrap(path, SharedNorm.of(norm))
        entries = sum(weight.form.entries() for weight in made)
        view.notes.append(
            f"{len(made)} convolutions are made from {entries:,} entries of base filters instead of {before:,}."
        )
        note_left(self, view, {weight.path for weight in made})
        view.notes += [f"Channels not in fours: {', '.join(orbits.left)}."] if orbits.left else []
        view.notes.append(turned_note(view, heads))

    def turn(self, weight: Weight, orbits: Orbits) -> None:
        """Give a weight, and the bias of its layer, turned copies."""
        codes, values = places_of(orbits.made[weight.path]), weight.dense().cpu()
        numbers = orbits.reads.get(weight.path)
        inputs, transform = torch.arange(values.shape[1]), ROTATE
        if numbers is not None and len(numbers.unique()) == len(numbers) and len(numbers) % TURNS == 0:
            inputs, transform = places_of(numbers), ROLL
        base = base_for(self.start, values, transform, codes, inputs)
        set_copies(weight, base, transform, TURNS, codes, inputs)
        if weight.layer.bias is not None and "bias" in weight.layer._parameters:
            bias = Weight(f"{weight.layer_path}.bias", [(weight.layer, "bias")])
            share_bias(bias, codes, weight)

    def heads(self, view: View, orbits: Orbits) -> list[str]:
        """Let linear layers that read channels in fours read the mean or the largest of each, and return their paths."""
        found, inside = [], brought_along(view.network)
        for weight in view.weights(self.where):
            numbers = orbits.reads.get(weight.path)
            if numbers is None or not weight.form.only_floats or not is_head(weight.layer, numbers):
                continue
            alone = len(weight.places) == 1 and id(weight.layer) not in inside
            if self.invariant == "max" and in_fours(numbers) and alone:
                view.wrap(weight.layer_path, OrientationMax.of(weight.layer, self.start))
            else:
                values, inputs = weight.dense().cpu().float(), places_of(numbers) // TURNS
                codes, empty = torch.arange(len(values)), Dense(torch.zeros(len(values), len(numbers) // TURNS))
                set_copies(weight, Transferred(empty, REPEAT, 1, codes, inputs).fit(values), REPEAT, 1, codes, inputs)
            found.append(weight.layer_path)
        return found


def base_for(start: str, values: Tensor, transform: int, codes: Tensor, inputs: Tensor) -> Tensor:
    """Return base filters for outputs of these codes: the first of each four, or the means over all four, turned back."""
    if start == "fresh":
        first = codes.argsort()[::TURNS]
        if transform == ROTATE:
            return values[first]
        return values[first][:, inputs.argsort()]
    shape = Transferred.inner_shapes(
        values.shape, {"transform": transform, "slots": TURNS, "rows": len(values) // TURNS,
                       "channels": values.shape[1] // (TURNS if transform == ROLL else 1)}
    )["base"]  # fmt: skip
    return Transferred(Dense(torch.zeros(shape)), transform, TURNS, codes, inputs, tuple(values.shape[2:])).fit(
        values.float()
    )


def share_bias(bias: Weight, codes: Tensor, weight: Weight) -> None:
    """Give the four orientations of each channel one bias, the mean."""
    means = torch.zeros(len(codes) // TURNS).index_add(0, codes // TURNS, bias.dense().cpu().float()) / TURNS
    bias.touched = weight.touched
    set_copies(bias, means, REPEAT, TURNS, codes)


def turned_note(view: View, heads: list[str]) -> str:
    """Return how much outputs change when the example turns by a quarter, as a sentence for the report."""
    if not heads or not any(is_picture(value) for value in tensors_in(view.example)):
        return "Feature maps turn with the picture, and outputs as far as the rest of the network allows."
    device = device_of(view.network)
    given = to_device(view.example, device)
    turned = map_tensors(lambda value: torch.rot90(value, 1, (2, 3)) if is_picture(value) else value, given)
    answers = [flat_outputs(view.network, call_arguments(one)) for one in (turned, given)]
    return (
        f"{len(heads)} linear layers treat all orientations alike ({', '.join(heads)}). When the example turns by a quarter, "
        f"outputs change by {difference(*answers):.1g} of the largest."
    )


def is_picture(value: Tensor) -> bool:
    """Return whether a tensor has square maps, (N, C, size, size)."""
    return value.dim() == 4 and value.shape[2] == value.shape[3] > 1
