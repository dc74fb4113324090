"""Embeddings: one row per symbol, one column per output channel."""

from torch import nn

from cortado.layers.kind import Axes, Kind

SIZES = ("num_embeddings", "embedding_dim")
SETTINGS = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")


def embedding_axes(layer: nn.Embedding) -> dict[str, Axes]:
    """Return the axes of the weight (symbols, out)."""
    return {"weight": Axes(output=1, inputs=(0,))}


KINDS = (
    Kind("embedding", nn.Embedding, SIZES, SETTINGS, embedding_axes),
    Kind("embedding", nn.EmbeddingBag, SIZES, (*SETTINGS, "mode", "include_last_offset"), embedding_axes),
)
