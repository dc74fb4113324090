"""Attach a form to any parameter of any layer, and read it back.  The layer keeps its class and interface."""

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.part import Part

PREFIX = "held_"


class Attached:
    """Marks the classes that `attach` makes.  `attached_names` are the layer's parameters held in forms."""

    attached_names: tuple[str, ...] = ()


def read_through(name: str) -> property:
    """Return a property that reads the tensor of the form attached to `name`."""

    def read(layer: nn.Module) -> Tensor:
        return layer._modules[PREFIX + name].dense()  # type: ignore[union-attr, operator]

    return property(read, lambda layer, value: refuse_setting(layer, name))


def refuse_setting(layer: nn.Module, name: str) -> None:
    """Raise BadNetwork: a parameter held in a form cannot be set."""
    raise BadNetwork(
        f"attach: {type(layer).__name__}.{name} is held in a form and cannot be set. "
        "Release it first: cortado.parts.forms.attach.release(layer, name)."
    )


def register_parameter(layer: nn.Module, name: str, value: nn.Parameter | None) -> None:
    """Register a Parameter as nn.Module does, except for names held in forms."""
    if name in attached_names(layer):
        refuse_setting(layer, name)
    original_class(layer).register_parameter(layer, name, value)


def flat_weights(layer: Any) -> list[Tensor]:
    """Return a recurrent layer's private weight list, rebuilt at each access."""
    return [getattr(layer, name, None) for name in layer._flat_weights_names]  # type: ignore[misc]


@cache
def attached_class(original: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """Return a subclass of `original` whose parameters `names` read through forms.  It has the same name."""
    body: dict[str, Any] = {name: read_through(name) for name in names}
    body |= {"attached_names": names, "register_parameter": register_parameter, "__reduce_ex__": reduce_attached}
    body |= {"__module__": original.__module__, "__qualname__": original.__qualname__}
    if issubclass(original, nn.RNNBase):
        # The list is rebuilt from the forms at every access; what the layer writes to it is dropped.
        body["_flat_weights"] = property(flat_weights, lambda layer, value: None)
    return type(original.__name__, (Attached, original), body)


def reduce_attached(layer: nn.Module, protocol: int) -> tuple[Any, ...]:
    """Return the pickle and copy state of a layer: its original class and its `attached_names`."""
    original = original_class(layer)
    maker, given, *rest = original.__reduce_ex__(layer, max(protocol, 2))  # type: ignore[str-unpack]
    given = tuple(original if one is type(layer) else one for one in given)
    return (remade, (maker, given, attached_names(layer)), *rest)


def remade(maker: Callable[..., nn.Module], given: tuple[Any, ...], names: tuple[str, ...]) -> nn.Module:
    """Return an empty layer for unpickling whose parameters `names` read through forms; its state follows."""
    layer = maker(*given)
    layer.__class__ = attached_class(original_class(layer), names)  # type: ignore[arg-type, assignment]
    return layer


def original_class(layer: nn.Module) -> type[nn.Module]:
    """Return the class of a layer as its author wrote it."""
    return next(kind for kind in type(layer).__mro__ if not issubclass(kind, Attached))  # type: ignore[return-value]


def attached_names(layer: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters held in forms."""
    return layer.attached_names if isinstance(layer, Attached) else ()


def form_of(layer: nn.Module, name: str) -> Form | None:
    """Return the form of the layer's parameter `name`, or None for a plain parameter."""
    return layer._modules[PREFIX + name] if name in attached_names(layer) else None  # type: ignore[return-value]


def attach(layer: nn.Module, name: str, form: Form) -> None:
    """Attach `form` to the parameter `name` of `layer`; reading `layer.<name>` then gives `form.dense()`.

    Works for any layer with a parameter of that name, including user-defined ones.  The form may have another shape
    than the parameter had (after a cut).  Raises BadNetwork when the layer has no such parameter.
    """
    names, before = attached_names(layer), form_of(layer, name)
    learned = [] if before is None else list(before.parameters())
    if learned and not any(parameter.requires_grad for parameter in learned):
        form.requires_grad_(False)
    if name not in names:
        if layer._parameters.get(name) is None:
            known = ", ".join(key for key, value in layer._parameters.items() if value is not None) or "none"
            raise BadNetwork(f"attach: {type(layer).__name__} has no parameter {name!r}. Its parameters: {known}.")
        old = layer._parameters[name]
        for parameter in form.parameters():
            parameter.requires_grad_(parameter.requires_grad and bool(old is None or old.requires_grad))
        del layer._parameters[name]
        # A recurrent layer's own list must not shadow the new class's property.
        layer.__dict__.pop("_flat_weights", None) if isinstance(layer, nn.RNNBase) else None
        layer.__class__ = attached_class(original_class(layer), (*names, name))  # type: ignore[arg-type]
    layer._modules[PREFIX + name] = form


def release(layer: nn.Module, name: str) -> Tensor:
    """Turn the parameter `name` back into a plain float Parameter with the form's value, and return it."""
    form = form_of(layer, name)
    if form is None:
        return getattr(layer, name)
    value = nn.Parameter(form.dense().detach().clone())
    names = tuple(other for other in attached_names(layer) if other != name)
    del layer._modules[PREFIX + name]
    original = original_class(layer)
    layer.__class__ = attached_class(original, names) if names else original  # type: ignore[arg-type]
    layer.register_parameter(name, value)
    if isinstance(layer, nn.RNNBase) and not names:
        layer._flat_weights = [getattr(layer, key, None) for key in layer._flat_weights_names]
    return value


def finalize_forms(network: nn.Module) -> None:
    """Finalize every form that is still in training, in place; tied weights stay tied."""
    attached = [(layer, PREFIX + name) for layer in network.modules() for name in attached_names(layer)]
    # Keep the old forms alive until the end: an id is unique only while its object lives.
    forms: dict[int, Any] = {id(layer._modules[slot]): layer._modules[slot] for layer, slot in attached}
    finalized = {key: form.finalize() for key, form in forms.items()}
    for layer, slot in attached:
        layer._modules[slot] = finalized[id(layer._modules[slot])]


def part_kinds(network: nn.Module) -> set[Any]:
    """Return the classes of the parts in a network, as their authors wrote them."""
    return {original_class(part) for part in network.modules() if isinstance(part, Part)}


def dense_form(parameter: Tensor) -> Form:
    """Return the form of a plain parameter."""
    return Dense(parameter)
