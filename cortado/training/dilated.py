"""Dilated: convolutions with gaps in their kernels, trained in float32 where all else on a processor is in bfloat16."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DILATION = {torch.conv1d: 5, torch.conv2d: 5, torch.conv3d: 5} | {
    torch.conv_transpose1d: 7, torch.conv_transpose2d: 7, torch.conv_transpose3d: 7,
}  # fmt: skip
"""Which argument of an operator is the dilation."""
BLOCK = 16
"""Channels that the kernels of oneDNN take at once."""


class DilatedInFloat32(TorchFunctionMode):
    """Runs dilated convolutions whose channels fill no whole blocks in float32, under autocast too.

    For these oneDNN, as torch 2.13 has it, gives NaN for gradients of weights in bfloat16, where channels come last. A cut
    leaves such numbers of channels behind.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func not in DILATION or not affected(DILATION[func], args, named):
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):
            return func(*map(in_float32, args), **{key: in_float32(value) for key, value in named.items()})


def affected(place: int, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether a convolution is dilated, with channels that are no multiple of a block."""
    dilation = args[place] if len(args) > place else named.get("dilation", 1)
    weight = args[1] if len(args) > 1 else named["weight"]
    widest = max(dilation) if isinstance(dilation, (tuple, list)) else dilation
    return bool(widest > 1 and (weight.shape[0] % BLOCK or weight.shape[1] % BLOCK))


def in_float32(value: Any) -> Any:
    """Return a tensor of floats in float32; anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
