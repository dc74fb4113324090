"""Widths: set a layer's attributes (in_channels, num_features ...) from the shapes of its tensors."""

from collections.abc import Callable
from typing import Any

from torch import Size, nn

from cortado.layers.recurrent import GATES
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.forms.attach import attached_names, form_of

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CHANNEL_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, ScaleShift,
)  # fmt: skip


def shape_of(layer: nn.Module, name: str) -> Size | None:
    """Return the shape of a parameter or buffer, whether or not a form holds it; None when the layer has none."""
    form = form_of(layer, name)
    if form is not None:
        return form.shape
    value = layer._parameters.get(name, layer._buffers.get(name))
    return None if value is None else value.shape


def match_widths(layer: nn.Module) -> None:
    """Set the attributes of a torch layer from the shapes of its tensors; other modules are left alone.

    The shapes do not always determine the number of groups of a convolution or group norm: it stays if it still
    divides the channels; otherwise whole groups were cut. Safe to call again, and after a cut of only some of the
    tensors.
    """
    for kinds, follow in DEPENDENTS:
        if isinstance(layer, kinds):
            follow(layer)
            return


def groups_left(groups: int, before: int, after: int) -> int:
    """Return the number of groups after `before` channels have become `after`."""
    size = before // groups if groups and before % groups == 0 else 0
    return after // size if size and after % groups and after % size == 0 else groups


def follow_linear(layer: nn.Linear) -> None:
    """Read the weight (out, in)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.out_features, layer.in_features = shape


def follow_bilinear(layer: nn.Bilinear) -> None:
    """Read the weight (out, in1, in2)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.out_features, layer.in1_features, layer.in2_features = shape


def follow_embedding(layer: Any) -> None:
    """Read the weight (symbols, out)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.num_embeddings, layer.embedding_dim = shape


def follow_convolution(layer: Any) -> None:
    """Read the weight (out, in / groups, kernel ...)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.groups = groups_left(layer.groups, layer.out_channels, shape[0])
        layer.out_channels, layer.in_channels = shape[0], shape[1] * layer.groups


def follow_transposed(layer: Any) -> None:
    """Read the weight (in, out / groups, kernel ...)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.groups = groups_left(layer.groups, layer.in_channels, shape[0])
        layer.in_channels, layer.out_channels = shape[0], shape[1] * layer.groups


def follow_channel_norm(layer: Any) -> None:
    """Read the scale, shift or statistics, one number per channel."""
    shape = first_shape(layer, "weight", "bias", "running_mean")
    if shape is not None:
        layer.num_features = shape[0]


def follow_group_norm(layer: nn.GroupNorm) -> None:
    """Read the scale, one number per channel."""
    shape = first_shape(layer, "weight", "bias")
    if shape is not None:
        layer.num_groups = groups_left(layer.num_groups, layer.num_channels, shape[0])
        layer.num_channels = shape[0]


def follow_layer_norm(layer: Any) -> None:
    """Read the scale or shift, which have the normalized shape."""
    shape = first_shape(layer, "weight", "bias")
    if shape is not None:
        layer.normalized_shape = tuple(shape)


def follow_attention(layer: nn.MultiheadAttention) -> None:
    """Read one matrix (3 * embed, embed) for query, key and value, or one (embed, width) for each."""
    joint = shape_of(layer, "in_proj_weight")
    if joint is not None:
        layer.embed_dim = layer.kdim = layer.vdim = joint[1]
    own = [shape_of(layer, f"{name}_proj_weight") for name in ("q", "k", "v")]
    if joint is None and own[0] is not None and own[1] is not None and own[2] is not None:
        layer.embed_dim, layer.kdim, layer.vdim = (shape[1] for shape in own if shape is not None)
    if layer.num_heads and layer.embed_dim % layer.num_heads == 0:
        layer.head_dim = layer.embed_dim // layer.num_heads


def follow_recurrent(layer: nn.RNNBase) -> None:
    """Read weight_ih (gates * hidden, in) and weight_hr (projected, hidden) of the first layer; update the list."""
    given, projected = shape_of(layer, "weight_ih_l0"), shape_of(layer, "weight_hr_l0")
    if given is not None and layer.mode in GATES:
        layer.hidden_size, layer.input_size = given[0] // GATES[layer.mode], given[1]
    if projected is not None:
        layer.proj_size = projected[0]
    if not attached_names(layer):
        layer.__dict__["_flat_weights"] = [layer._parameters.get(name) for name in layer._flat_weights_names]


def first_shape(layer: nn.Module, *names: str) -> Size | None:
    """Return the shape of the first of these tensors that the layer has."""
    return next((shape for shape in (shape_of(layer, name) for name in names) if shape is not None), None)


DEPENDENTS: tuple[tuple[Any, Callable[[Any], None]], ...] = (
    (nn.Linear, follow_linear),
    (TRANSPOSED, follow_transposed),
    (CONVOLUTIONS, follow_convolution),
    (CHANNEL_NORMS, follow_channel_norm),
    (nn.GroupNorm, follow_group_norm),
    ((nn.LayerNorm, nn.RMSNorm), follow_layer_norm),
    ((nn.Embedding, nn.EmbeddingBag), follow_embedding),
    (nn.MultiheadAttention, follow_attention),
    (nn.RNNBase, follow_recurrent),
    (nn.Bilinear, follow_bilinear),
)
