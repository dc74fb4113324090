"""Embeddings: one row per symbol, one column per output channel."""

from typing import Any

from torch import nn

from cortado.layers.kind import Axes, Kind, shape_of

SIZES = ("num_embeddings", "embedding_dim")
SETTINGS = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")


def embedding_axes(layer: nn.Embedding) -> dict[str, Axes]:
    """Return the axes of the weight (symbols, out)."""
    return {"weight": Axes(output=1, inputs=(0,))}


def follow_embedding(layer: Any) -> None:
    """Read the weight (symbols, out)."""
    shape = shape_of(layer, "weight")
    if shape is not None:
        layer.num_embeddings, layer.embedding_dim = shape


KINDS = (
    Kind("embedding", nn.Embedding, SIZES, SETTINGS, embedding_axes, follow_embedding),
    Kind(
        "embedding",
        nn.EmbeddingBag,
        SIZES,
        (*SETTINGS, "mode", "include_last_offset"),
        embedding_axes,
        follow_embedding,
    ),
)
