"""rewind: reset the remaining weights to earlier or fresh random values, and keep the masks."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.layers.factors import chain_of
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.statistics.gradients import released
from cortado.network.view import View
from cortado.network.weight import Weight, parameter_places
from cortado.parts.forms.attach import attached_names, form_of, release
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.same import same_bits, same_state
from cortado.parts.part import own_modules
from cortado.task.task import Task


def has_moved(method: Any, view: View, task: Task) -> bool:
    """Return whether rewinding changes a weight, a form or a statistic.  Raises BadNetwork for a weight without old values."""
    if method.to == "random":
        return True
    values = {weight.path: weight.dense() for weight in parameter_places(view.base)}
    pairs = [(weight, values_for(weight, values.get(weight.path))) for weight in method.chosen(view)]
    return any(not is_rewound(weight, old) for weight, old in pairs) or any(
        not same_bits(now, old) for now, old in method.buffers(view.network, view.base)
    )


def is_rewound(weight: Weight, old: Tensor) -> bool:
    """Return whether a weight already has its old values, and no codes."""
    form = form_of(*weight.places[0])
    return same_bits(weight.dense(), old) if form is None else same_state(form, form.refill(old, inside_mask))


MOVED = Need("a value that is not what it was at the start", has_moved, "use to: random")


@dataclass(frozen=True)
class Rewind(Method):
    """Reset all parameters and statistics to the start of the recipe, or to fresh random values.

    `to: start` is the lottery ticket (Frankle, Carbin, 2019) if the recipe starts from an untrained network.
    `to: random` is its control, and "training from scratch" (Liu et al., 2019) after a cut or factorization. Masks stay;
    codes and shared values become floats. With `where`, only the selected weights are reset, and no statistics.
    """

    trains = True
    needs = (MOVED,)
    leaves = (Leaves.FLOATS,)

    to: str = knob("start", one_of=("start", "random"), help="the values at the start of the recipe, or random ones")

    def apply(self, view: View, task: Task) -> None:
        source = view.base if self.to == "start" else reinitialised(view.network, task)
        values = {weight.path: weight.dense() for weight in parameter_places(source)}
        for weight in self.chosen(view):
            factors = chain_of(weight.layer) if self.to == "random" and weight.name == "weight" else None
            if factors is None:
                put_values(weight, values.get(weight.path))
            else:
                draw(weight, factors, task)
        for now, old in self.buffers(view.network, source):
            now.copy_(old)

    def chosen(self, view: View) -> list[Weight]:
        """Return what is reset, by default every parameter."""
        return view.all_weights if self.where == "*" else view.weights(self.where)

    def buffers(self, network: nn.Module, source: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """Return the statistics that are reset with all parameters, as pairs of the present and the earlier one."""
        old = dict(source.named_buffers()) if self.where == "*" else {}
        pairs = [(now, old[name]) for name, now in network.named_buffers() if name in old]
        return [(now, then) for now, then in pairs if now.shape == then.shape]


def values_for(weight: Weight, values: Tensor | None) -> Tensor:
    """Return the values for a weight.  Raises BadNetwork if there are none of its shape."""
    if values is None or values.shape != weight.shape:
        before = "did not exist" if values is None else f"had shape {tuple(values.shape)}"
        raise BadNetwork(
            f"rewind: {weight.path} {before} at the start and has shape {tuple(weight.shape)} now, so it has no "
            "initial values. Put rewind before the stage that cuts, or use to: random."
        )
    return values


def put_values(weight: Weight, found: Tensor | None) -> None:
    """Set a weight to the values found for it, under its mask.  Raises BadNetwork if they do not fit its shape."""
    values = values_for(weight, found)
    if weight.name in attached_names(weight.layer):
        weight.set_form(weight.form.refill(values, inside_mask))
    else:
        with torch.no_grad():
            getattr(weight.layer, weight.name).copy_(values)


def inside_mask(values: Tensor, form: Form) -> Form:
    """Return a form with new values under the same mask; codes and shared values are dropped."""
    support = form.support()
    return Dense(values) if support is None else Dense(values).select(support)


def draw(weight: Weight, factors: nn.Module, task: Task) -> None:
    """Re-initialise the factors of a low-rank weight like the layers they run as; masks of factors stay."""
    bias = weight.layer._parameters.get("bias")
    before = None if bias is None else bias.detach().clone()
    drawn = []
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(task.seed * 1_000_003 + zlib.crc32(weight.path.encode()))
        for layer in factors.children():
            form = form_of(layer, "weight")
            values = release(layer, "weight")
            layer.reset_parameters()  # type: ignore[operator]
            drawn.append(None if form is None else form.refill(values.detach(), inside_mask))
    if any(form is not None for form in drawn):
        weight.set_form(with_factors(weight.form, iter(drawn)))
    if bias is not None and before is not None:
        # The last factor carries the layer's bias, which is drawn separately.
        with torch.no_grad():
            bias.copy_(before)


def with_factors(form: Form, drawn: Iterator[Form | None]) -> Form:
    """Return the same chain with new forms for its factors, in execution order; None leaves one unchanged."""
    factors = form.factors()
    if factors is not None:
        first = with_factors(factors.first, drawn)
        return factors.remade(first, with_factors(factors.last, drawn))
    return next(drawn) or form


def reinitialised(network: nn.Module, task: Task) -> nn.Module:
    """Return a copy with plain weights whose layers were reset by their own reset_parameters, from the task's seed.

    Raises BadNetwork if a layer with own parameters has no reset_parameters.
    """
    duplicate = released(network)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(task.seed * 1_000_003 + 41)
        for path, layer in own_modules(duplicate).items():
            if not any(value is not None for value in layer._parameters.values()):
                continue
            reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if reset is None:
                raise BadNetwork(
                    f"rewind: {path} ({type(layer).__name__}) has no reset_parameters, so it cannot draw new values. "
                    "Add the method to the class, or use to: start."
                )
            reset()
    return duplicate
