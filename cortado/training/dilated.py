"""Dilated: train dilated convolutions in float32 while everything else on a CPU is in bfloat16."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cortado.network.graph.operators.convolution import DILATION

BLOCK = 16
"""Channel block size of oneDNN's kernels."""


class DilatedInFloat32(TorchFunctionMode):
    """Runs dilated convolutions with partial channel blocks in float32, even under autocast.

    For these, oneDNN in torch 2.13 returns NaN as bfloat16 weight gradients in channels-last layout. Channel pruning
    creates such channel counts.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        place = DILATION.get(getattr(func, "__name__", ""))
        if place is None or not affected(place, args, named):
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):
            return func(*map(in_float32, args), **{key: in_float32(value) for key, value in named.items()})


def affected(place: int, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether a convolution is dilated and has a channel count that is no multiple of a block."""
    dilation = args[place] if len(args) > place else named.get("dilation", 1)
    weight = args[1] if len(args) > 1 else named["weight"]
    widest = max(dilation) if isinstance(dilation, (tuple, list)) else dilation
    return bool(widest > 1 and (weight.shape[0] % BLOCK or weight.shape[1] % BLOCK))


def in_float32(value: Any) -> Any:
    """Return a float tensor in float32, and anything else unchanged."""
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
