"""Attention layers."""

from typing import Any

from torch import nn

from cortado.layers.kind import Axes, Kind, shape_of


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


SIZES = ("embed_dim", "num_heads", "kdim", "vdim")
KINDS = (AttentionKind("attention", nn.MultiheadAttention, SIZES, (), attention_axes, follow_attention),)
