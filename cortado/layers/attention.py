"""Attention layers."""

from typing import Any

from torch import nn

from cortado.layers.kind import Axes, Kind


def attention_axes(layer: nn.MultiheadAttention) -> dict[str, Axes]:
    """Return the axes of one matrix (3 * embed, embed) for query, key and value, or of three; the output projection
    is the inner linear layer, under its dotted name.
    """
    matrix = Axes(output=0, inputs=(1,))
    axes = {f"{name}_proj_weight": matrix for name in ("q", "k", "v")}
    axes |= {"in_proj_weight": Axes(output=0, inputs=(1,), blocks=3)}
    axes |= {"in_proj_bias": Axes(output=0, blocks=3), "bias_k": Axes(output=2), "bias_v": Axes(output=2)}
    return axes | {"out_proj.weight": matrix, "out_proj.bias": Axes(output=0)}


class AttentionKind(Kind):
    """MultiheadAttention stores some of its constructor values under other names."""

    def size_values(self, layer: Any) -> dict[str, Any]:
        """Return the sizes; key and value widths are None where they equal the embedding's."""
        sizes = super().size_values(layer)
        follow = {name: None for name in ("kdim", "vdim") if layer._qkv_same_embed_dim}
        return sizes | follow

    def setting_values(self, layer: Any) -> dict[str, Any]:
        """Return the constructor values other than the sizes."""
        return {
            "dropout": layer.dropout,
            "bias": layer.in_proj_bias is not None,
            "add_bias_kv": layer.bias_k is not None,
            "add_zero_attn": layer.add_zero_attn,
            "batch_first": layer.batch_first,
        }


KINDS = (
    AttentionKind("attention", nn.MultiheadAttention, ("embed_dim", "num_heads", "kdim", "vdim"), (), attention_axes),
)
