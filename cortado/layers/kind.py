"""Kind: all that is known of one layer class - its channel axes, the values that build it, and what it computes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor, nn

from cortado.errors import BadNetwork, BadValue
from cortado.layers.roles import FLOAT
from cortado.parts.forms.attach import attached_names, form_of, original_class


@dataclass(frozen=True)
class Axes:
    """The channel axes of one tensor of a layer.

    `output` is the axis of the output channels and `inputs` are the axes of the input channels. With `groups` > 1 the
    input axis has the channels of one group only (for a transposed convolution: the output axis). With `blocks` > 1
    the output axis repeats all output channels once per block, as the gates of a recurrent layer do.
    """

    output: int | None = None
    inputs: tuple[int, ...] = ()
    groups: int = 1
    blocks: int = 1


@dataclass(frozen=True)
class Kind:
    """The facts about `layer_class`.

    `sizes` are the constructor values that set its shape, `settings` the others; the layer has attributes of the same
    names (`bias` is a flag). `all_axes(layer)` describes every tensor with channels that such a layer may have, by
    its name inside the layer. `follow(layer)` sets the sizes from the shapes of the tensors after a cut.

    `role`: what it does to an activation (layers/roles.py). `spatial`: how many axes its activations have after the
    channels. `transposed`: a transposed convolution. `patches(layer, activation, count, generator)`: the rows (rows, inputs
    x taps) that `weight.flatten(1)` multiplies, at random positions; None where the weight is no such matrix.
    `below(layer)`: the factor on values below zero. `homogeneous`: a positive factor on a channel passes unchanged.

    A user's layer class has one as its attribute `__cortado_kind__`.
    """

    family: str
    layer_class: type[nn.Module]
    sizes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    all_axes: Callable[[Any], dict[str, Axes]] = lambda layer: {}
    follow: Callable[[Any], None] = lambda layer: None
    role: str = FLOAT
    spatial: int = 0
    transposed: bool = False
    patches: Callable[[Any, Tensor, int, torch.Generator], Tensor] | None = None
    below: Callable[[Any], float] = lambda layer: 1.0
    homogeneous: bool = False

    def axes(self, layer: nn.Module) -> dict[str, Axes]:
        """Return the axes of the parameters and buffers that this layer has, whether or not forms hold them."""
        present = {name for name, _ in (*layer.named_parameters(), *layer.named_buffers())}
        for path, part in layer.named_modules():
            present |= {f"{path}.{name}".lstrip(".") for name in attached_names(part)}
        return {name: axes for name, axes in self.all_axes(layer).items() if name in present}

    def size_values(self, layer: nn.Module) -> dict[str, Any]:
        """Return the constructor values that set the layer's shape."""
        return {name: getattr(layer, name) for name in self.sizes}

    def setting_values(self, layer: nn.Module) -> dict[str, Any]:
        """Return the other constructor values."""
        values = {name: getattr(layer, name) for name in self.settings}
        if "bias" in values and not isinstance(values["bias"], bool):
            values["bias"] = values["bias"] is not None
        return values

    def resized(self, layer: nn.Module, **sizes: Any) -> nn.Module:
        """Return a layer of the same class with other `sizes`, in the same mode and dtype, all tensors zero.

        Raises BadValue for a size that this class does not have or that does not fit the others, BadNetwork for a
        subclass with tensors of its own, whose new shapes are unknown.
        """
        unknown = sorted(set(sizes) - set(self.sizes))
        if unknown:
            raise BadValue(
                f"layers: {self.layer_class.__name__} has no size {unknown[0]!r}. Its sizes: {', '.join(self.sizes)}."
            )
        values = self.size_values(layer) | sizes | self.setting_values(layer)
        try:
            fresh = self.layer_class(**values, device="meta")
        except (ValueError, RuntimeError, AssertionError) as error:
            raise BadValue(
                f"layers: {self.layer_class.__name__} cannot be built with {sizes} ({error}). Pass sizes that fit."
            ) from error
        example = next(iter(layer.parameters()), torch.empty(0))
        fresh.to_empty(device=example.device).to(example.dtype).train(layer.training)
        for tensor in (*fresh.parameters(), *fresh.buffers()):
            tensor.detach().zero_()
        return fresh if original_class(layer) is self.layer_class else as_subclass(fresh, layer)


def as_subclass(fresh: nn.Module, layer: nn.Module) -> nn.Module:
    """Return `fresh` as a layer of the user's subclass, with the extra plain attributes of `layer`."""
    own = original_class(layer)
    extra = sorted(
        name
        for name in (*layer._parameters, *layer._buffers, *layer._modules)
        if name not in (*fresh._parameters, *fresh._buffers, *fresh._modules) and not name.startswith("held_")
    )
    if extra:
        raise BadNetwork(
            f"layers: {own.__name__} has an attribute {extra[0]!r} that {type(fresh).__name__} lacks, "
            "so its new shape is unknown. Exclude this layer with where=."
        )
    copy = own.__new__(own)
    copy.__dict__.update(layer.__dict__)
    copy.__dict__.update(fresh.__dict__)
    return copy


def shape_of(layer: nn.Module, name: str) -> Size | None:
    """Return the shape of a parameter or buffer, whether or not a form holds it; None when the layer has none."""
    form = form_of(layer, name)
    if form is not None:
        return form.shape
    value = layer._parameters.get(name, layer._buffers.get(name))
    return None if value is None else value.shape


def first_shape(layer: nn.Module, *names: str) -> Size | None:
    """Return the shape of the first of these tensors that the layer has."""
    return next((shape for shape in (shape_of(layer, name) for name in names) if shape is not None), None)


def groups_left(groups: int, before: int, after: int) -> int:
    """Return the number of groups after `before` channels have become `after`."""
    size = before // groups if groups and before % groups == 0 else 0
    return after // size if size and after % groups and after % size == 0 else groups
