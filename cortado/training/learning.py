"""Learning: train some weights of a network while all other parameters are frozen."""

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn

from cortado.network.view import View
from cortado.network.weight import Factor, Weight
from cortado.parts.forms.attach import form_of


@contextlib.contextmanager
def only_learning(view: View, weights: list[Weight] | None) -> Iterator[None]:
    """Freeze all parameters but those of `weights` inside the context; None freezes nothing.

    Batch norm statistics are buffers, not parameters, and keep moving.
    """
    chosen = {id(part) for weight in weights or () for part in parts_of(weight)}
    with frozen(p for p in view.network.parameters() if id(p) not in chosen and weights is not None):
        yield


@contextlib.contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Freeze parameters inside the context; those that are trainable before it are so afterwards."""
    still = [one for one in parameters if one.requires_grad]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)


def parts_of(weight: Weight) -> list[nn.Parameter]:
    """Return the Parameters that make up a weight: itself, or those of its form."""
    form = weight.form if isinstance(weight, Factor) else form_of(weight.layer, weight.name)
    if form is not None:
        return list(form.parameters())
    own = weight.layer._parameters[weight.name]
    return [] if own is None else [own]
