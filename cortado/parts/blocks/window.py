"""Window: how a convolution over two axes moves over its input, as the facts of blocks that hold one."""

from typing import Any

from torch import nn

from cortado.errors import BadValue

WINDOW = ("high", "wide", "stride_high", "stride_wide", "pad_high", "pad_wide", "step_high", "step_wide")
"""Kernel, stride, zero padding and dilation, each for both axes."""
Window = dict[str, int]
LARGEST = 2**12


def window_of(layer: Any) -> Window:
    """Return the window of an nn.Conv2d whose padding is given by numbers."""
    sizes = (*layer.kernel_size, *layer.stride, *layer.padding, *layer.dilation)
    return dict(zip(WINDOW, sizes, strict=True))


def windowed(window: Window, inputs: int, outputs: int, bias: bool, groups: int = 1) -> nn.Conv2d:
    """Return a convolution with this window.  Raises BadValue for sizes of none."""
    pairs = [(window[f"{name}high"], window[f"{name}wide"]) for name in ("", "stride_", "pad_", "step_")]
    kernel, stride, padding, dilation = pairs
    if min(*kernel, *stride, *dilation, inputs, outputs, groups) < 1 or max(window.values()) > LARGEST:
        raise BadValue(
            f"blocks/window: no convolution has {inputs} inputs, {outputs} outputs, {groups} groups, {window}."
        )
    if inputs % groups or outputs % groups:
        raise BadValue(f"blocks/window: {groups} groups do not divide {inputs} inputs and {outputs} outputs.")
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)


def point_window(window: Window) -> Window:
    """Return the window of a 1 x 1 kernel that reads the middle of the kernel of another window."""
    middle = {f"pad_{axis}": window[f"pad_{axis}"] - window[f"step_{axis}"] * (window[axis] // 2) for axis in AXES}
    return window | dict.fromkeys(AXES, 1) | middle


def has_middle(window: Window) -> bool:
    """Return whether a 1 x 1 kernel can read the middle of every place of a kernel: odd sizes, padded by at least half."""
    return all(window[axis] % 2 for axis in AXES) and min(point_window(window)[f"pad_{axis}"] for axis in AXES) >= 0


AXES = ("high", "wide")
