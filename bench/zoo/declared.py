"""Declared: whether the layers of a network say of themselves what their tensors are."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def contradictions(network: nn.Module) -> list[str]:
    """Layers of torch's whose attributes say other widths than their tensors have."""
    return [name for name, layer in network.named_modules() if said(layer) != seen(layer)]


def said(layer: Any) -> list[int]:
    """The widths by the attributes."""
    if isinstance(layer, _ConvTransposeNd):
        return [layer.in_channels, layer.out_channels // layer.groups]
    if isinstance(layer, _ConvNd):
        return [layer.out_channels, layer.in_channels // layer.groups]
    if isinstance(layer, nn.Linear):
        return [layer.out_features, layer.in_features]
    if isinstance(layer, _NormBase):
        return [layer.num_features] * len(vectors(layer))
    if isinstance(layer, nn.GroupNorm):
        return [layer.num_channels] * len(vectors(layer))
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        return list(layer.normalized_shape) * len(vectors(layer))
    if isinstance(layer, nn.Embedding):
        return [layer.num_embeddings, layer.embedding_dim]
    if isinstance(layer, nn.RNNBase):
        return [layer.input_size, layer.proj_size or layer.hidden_size]
    return []


def seen(layer: Any) -> list[int]:
    """The same widths by the tensors."""
    if isinstance(layer, (_ConvNd, nn.Linear, nn.Embedding)):
        return list(layer.weight.shape[:2])
    if isinstance(layer, (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
        return [size for value in vectors(layer) for size in value.shape]
    if isinstance(layer, nn.RNNBase):
        return [layer.weight_ih_l0.shape[1], layer.weight_hh_l0.shape[1]]
    return []


def vectors(layer: nn.Module) -> list[Any]:
    """A norm's parameters and statistics."""
    return [
        value for value in (*layer._parameters.values(), *layer._buffers.values()) if value is not None and value.dim()
    ]
