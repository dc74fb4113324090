"""Activation layers that clip: what they do to values below zero."""

from torch import nn

from cortado.layers.kind import Kind
from cortado.layers.roles import CLIP


def no_negatives(layer: nn.Module) -> float:
    """Return 0: nothing below zero passes a ReLU."""
    return 0.0


def bounded(layer: nn.Hardtanh) -> float:
    """Return 0 where the lower bound is zero or above."""
    return 0.0 if layer.min_val >= 0 else 1.0


KINDS = (
    Kind("activation", nn.ReLU, settings=("inplace",), role=CLIP, below=no_negatives, homogeneous=True),
    Kind("activation", nn.ReLU6, settings=("inplace",), role=CLIP, below=bounded),
    Kind("activation", nn.Hardtanh, settings=("min_val", "max_val", "inplace"), role=CLIP, below=bounded),
)
