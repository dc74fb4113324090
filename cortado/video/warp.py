"""Warp: carry pictures, predictions and labels along a flow, and where that can be trusted."""

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadValue


def warp(values: Tensor, flow: Tensor) -> Tensor:
    """Return the values of an earlier frame as they stand in the later one.

    >>> carried = warp(earlier_probabilities, flow)

    `values` are floats (N, C, H, W), interpolated bilinearly, with a gradient; or whole numbers (N, H, W), such as labels,
    taken from the nearest pixel. `flow` is (N, 2, H, W), backward, in pixels, x then y. A flow of zeros changes nothing, and
    one of whole pixels is exact. What comes from outside the picture is its nearest edge; `inside` tells where. Raises BadValue
    where the sizes differ.
    """
    floats = values.is_floating_point()
    if values.dim() != (4 if floats else 3) or flow.shape != (len(values), 2, *values.shape[-2:]):
        raise BadValue(
            f"video: warp takes floats (N, C, H, W) or labels (N, H, W) and a flow (N, 2, H, W), got {tuple(values.shape)} and "
            f"{tuple(flow.shape)}. Bring the flow to their size with resized_flow."
        )
    x, y = origins(flow)
    if not floats:
        return at_pixels(values[:, None], x.round(), y.round())[:, 0]
    left, top = x.floor(), y.floor()
    right_share, low_share = ((one - edge)[:, None].to(values.dtype) for one, edge in ((x, left), (y, top)))
    upper, lower = (
        at_pixels(values, left, row) * (1 - right_share) + at_pixels(values, left + 1, row) * right_share
        for row in (top, top + 1)
    )
    return upper * (1 - low_share) + lower * low_share


def origins(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y in the earlier frame of each pixel, (N, H, W) each, in pixels."""
    height, width = flow.shape[2:]
    columns = torch.arange(width, device=flow.device, dtype=torch.float32)
    rows = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None]
    return flow[:, 0].float() + columns, flow[:, 1].float() + rows


def at_pixels(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return values (N, C, H, W) at whole positions (N, H, W); outside the picture those of its edge."""
    height, width = values.shape[2:]
    places = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
    index = places.flatten(1)[:, None].expand(-1, values.shape[1], -1)
    return values.flatten(2).gather(2, index).view_as(values)


def inside(flow: Tensor) -> Tensor:
    """Return which pixels were in the picture, boolean (N, H, W): at most half a pixel outside the edge's centres."""
    height, width = flow.shape[2:]
    x, y = (one.round() for one in origins(flow))
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def visible(later: Tensor, earlier: Tensor, flow: Tensor, steepness: float = 10.0) -> Tensor:
    """Return how far each pixel can be followed, float32 (N, H, W) in 0..1.  Liu et al., 2020.

    It is 0 for what came from outside the picture, else exp(-`steepness` x d), d being the mean absolute difference in 0..1
    between the later frame and the earlier one carried along: what was hidden before looks different. Frames are (N, 3, H, W),
    0..255.
    """
    apart = (later.float() - warp(earlier.float(), flow)).abs().mean(1) / 255
    return inside(flow) * torch.exp(-steepness * apart)


def resized_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a flow for pictures of another size (height, width): averaged, and in pixels of that size."""
    scale = torch.tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]], device=flow.device)
    return functional.adaptive_avg_pool2d(flow.float(), size) * scale.view(1, 2, 1, 1)
