"""Transfer: the layers whose filters can be made from fewer ones, and how base filters start."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadNetwork
from cortado.layers.kinds import is_convolution, is_matmul
from cortado.layers.norm import is_batch_norm
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.methods.transfer.matching import best_copies, fitted_base
from cortado.network.coupling.groups import Group, Slot
from cortado.network.graph.feed_forward import one_reading, pointwise_name
from cortado.network.graph.flow import FlowStep
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.attach import attached_names
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.transferred import Transferred
from cortado.task.task import Task


@dataclass(frozen=True)
class Transfer(Method):
    """Make the filters of convolutions from fewer base filters; only those are stored, and trained.

    `start: fit` takes the base filters that come closest to the trained ones, with the best partners for each: a start for
    a training, since trained filters have little in common. `start: fresh` takes the first filter of each set, for a network
    that is not trained yet. Weights that are not plain floats are left unchanged: transfer filters before other stages.
    """

    lossy = True
    leaves = (Leaves.COPIES,)

    start: str = knob("fit", one_of=("fit", "fresh"), help="base filters from trained weights, or for a new network")


@dataclass(frozen=True)
class Filters:
    """A convolution whose filters can be made from fewer; `norm` alone reads its outputs, `ends` is what follows both."""

    weight: Weight
    norm: Any
    ends: FlowStep | None

    @property
    def layer(self) -> Any:
        return self.weight.layer

    @property
    def free(self) -> bool:
        """Return whether factors of filters, signs included, can move into the norm behind."""
        norm = self.norm
        return norm is not None and norm.affine and not attached_names(norm) and norm.running_mean is not None


def float_filters(method: Any, view: View) -> list[Weight]:
    """Return the chosen weights of single convolutions without groups whose entries are all floats."""
    chosen = [weight for weight in view.weights(method.where) if weight.name == "weight"]
    return [
        weight
        for weight in chosen
        if is_convolution(weight.layer) and len(weight.places) == 1 and weight.form.only_floats
    ]


def filters_in(view: View, weights: list[Weight]) -> list[Filters]:
    """Return what stands behind the convolutions of some weights that ran once."""
    flow, found = view.flow, []
    readers, modules = flow.readers(), dict(view.network.named_modules())
    by_path = {weight.layer_path: weight for weight in weights}
    for step in flow.steps:
        weight = by_path.get(step.path)
        if weight is None or not is_matmul(modules[step.path]) or flow.calls.get(step.path) != 1:
            continue
        after, norm = one_reading(step, readers, flow), None
        if after is not None and is_batch_norm(modules.get(after.path)) and flow.calls.get(after.path) == 1:
            norm, after = modules[after.path], one_reading(after, readers, flow)
        found.append(Filters(weight, norm, after))
    return found


def before_a_bend(method: Any, view: View, task: Task) -> list[Filters]:
    """Return the filters whose outputs only something that is not linear reads: elsewhere copies would add nothing."""
    weights = [weight for weight in float_filters(method, view) if weight.layer.groups == 1 and weight.shape[0] > 1]
    return [one for one in filters_in(view, weights) if bends(view, one)]


def bends(view: View, filters: Filters) -> bool:
    """Return whether a step of one operand that is not linear follows."""
    step = filters.ends
    if step is None or len(step.inputs) != 1:
        return False
    return step.below != 1 or pointwise_name(view.graph, step) in BENT


BENT = ("gelu", "silu", "hardswish", "sigmoid", "tanh", "mish", "elu", "selu", "softplus", "hardsigmoid", "relu6")
"""Pointwise operators that are neither linear nor known by a slope."""

UNTIED = Need(
    "a convolution of plain floats, without groups, before a nonlinearity",
    before_a_bend,
    "transfer filters before other stages",
)


def make_filters(
    method: Transfer, view: View, filters: list[Filters], transform: int, slots: int, task: Task,
    fresh: Callable[[Tensor, torch.Generator], Tensor],
) -> None:  # fmt: skip
    """Give each of some convolutions copies of base filters, matched to its filters or fresh in their natural order."""
    before = sum(one.weight.shape.numel() for one in filters)
    found: dict[str, Tensor] = {}
    with view.progress.bar(method.name(), len(filters)) as bar:
        for number, one in enumerate(filters):
            generator, values = task.generator(61 + number), one.weight.dense().cpu()
            if method.start == "fit":
                values = unit_filters(one, values) if one.free else values
                found[one.weight.path], signs = best_copies(values, transform, slots, generator, one.free)
                if one.free:
                    turn_signs(one, signs)
            else:
                set_copies(one.weight, fresh(values, generator), transform, slots, torch.arange(len(values)))
            bar.advance()
    by_path = {one.weight.path: one.weight for one in filters}
    for path, codes in side_by_side(view, found).items():
        weight = by_path[path]
        base = fitted_base(weight.dense().cpu(), transform, slots, codes, -(-len(codes) // slots))
        set_copies(weight, base, transform, slots, codes)
    made = sum(one.weight.form.entries() for one in filters)
    view.notes.append(
        f"{len(filters)} convolutions are made from {made:,} entries of base filters instead of {before:,}."
    )
    note_left(method, view, set(by_path))


def side_by_side(view: View, codes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the outputs of layers, and what reads them, in the order of their copies, where nothing else makes them.

    Return the new codes of the weights. Copies that stand side by side are computed once.
    """
    if not codes:
        return codes
    try:
        groups = view.groups.all
    except BadNetwork as error:
        view.notes.append(f"Copies are computed one by one, since channels cannot be put in order. {error}")
        return codes
    orders = {group: order for group in groups if (order := order_in(group, codes)) is not None}
    view.reorder(orders)
    moved = {makers_with_codes(group, codes)[0].names[0]: order for group, order in orders.items()}
    return {path: own[moved[path]] if path in moved else own for path, own in codes.items()}


def order_in(group: Group, codes: dict[str, Tensor]) -> Tensor | None:
    """Return the order of a group's units by the codes of the only weight with codes that makes them; None without one."""
    makers = makers_with_codes(group, codes)
    if len(makers) != 1 or group.ordered:
        return None
    own, units = codes[makers[0].names[0]], makers[0].units
    return own.argsort() if len(own) == group.count and torch.equal(units, torch.arange(len(own))) else None


def makers_with_codes(group: Group, codes: dict[str, Tensor]) -> list[Slot]:
    """Return the slots of the weights with codes that make a group."""
    return [slot for slot in group.of_role("producer") if slot.names[0] in codes]


def note_left(method: Any, view: View, made: set[str]) -> None:
    """Note which of the chosen convolutions are unchanged."""
    left = [one.layer_path for one in view.weights(method.where) if is_convolution(one.layer) and one.path not in made
            and one.name == "weight"]  # fmt: skip
    if left:
        view.notes.append(f"{len(left)} convolutions are unchanged: {', '.join(left)}.")


def set_copies(weight: Weight, base: Tensor, transform: int, slots: int, codes: Tensor, inputs: Any = None) -> None:
    """Set the form of a weight to copies of base filters; `inputs` in their order by default."""
    shape, device = weight.shape, weight.dense().device
    read = torch.arange(shape[1] if len(shape) > 1 else 0) if inputs is None else inputs
    form = Dense(base.to(weight.dense()))
    weight.set_form(Transferred(form, transform, slots, codes.to(device), read.to(device), tuple(shape[2:])))


def unit_filters(filters: Filters, values: Tensor) -> Tensor:
    """Return the filters with norm 1; their norms move into the batch norm behind, and the network computes the same."""
    sizes = values.flatten(1).norm(dim=1).clamp_min(torch.finfo(values.dtype).tiny)
    norm, layer = filters.norm, filters.layer
    with torch.no_grad():
        own = sizes.to(norm.running_mean)
        spread = (norm.running_var + norm.eps).sqrt()
        norm.running_mean.div_(own)
        norm.running_var.div_(own.square())
        norm.weight.mul_(own * (norm.running_var + norm.eps).sqrt() / spread)
        scale_outputs(layer, 1 / own)
    return layer.weight.detach().cpu()


def turn_signs(filters: Filters, signs: Tensor) -> None:
    """Move the signs of filters into the batch norm behind; the network computes the same."""
    with torch.no_grad():
        own = signs.to(filters.norm.running_mean)
        filters.norm.running_mean.mul_(own)
        filters.norm.weight.mul_(own)
        scale_outputs(filters.layer, own)


def scale_outputs(layer: Any, factors: Tensor) -> None:
    """Multiply the outputs of a convolution by factors (outputs,)."""
    layer.weight.mul_(factors.view(-1, *[1] * (layer.weight.dim() - 1)))
    if layer.bias is not None:
        layer.bias.mul_(factors)


def first_of_each(slots: int, values: Tensor, generator: torch.Generator) -> Tensor:
    """Return the first filter of each set of `slots`."""
    return values[::slots]


def every(slots: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return what takes the first filter of each set of `slots`."""
    return partial(first_of_each, slots)
