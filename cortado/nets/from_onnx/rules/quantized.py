"""Quantized: what the quantize operators of an integer file compute."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.nets.from_onnx.node import Made, Node, Rule
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import OUTPUT, put_quantizer

LOWEST = {torch.uint8: 0, torch.int8: -128, torch.int16: -(2**15), torch.int32: -(2**31), torch.int64: 0}
"""The lowest code of each type; codes of 16 bits without sign are read as int64."""
WIDTHS = {torch.uint8: 8, torch.int8: 8, torch.int16: 16, torch.int64: 16}


def decoded_values(codes: Tensor, scale: Tensor | float, zero: Tensor | float, axis: int, block: int) -> Tensor:
    """Return the values of codes, with one scale, or one along an axis, for each entry or block of it."""
    scale, zero = (along_axis(torch.as_tensor(one), codes, axis, block) for one in (scale, zero))
    return (codes.to(scale.dtype) - zero.to(scale.dtype)) * scale


def coded(
    values: Tensor, scale: Tensor | float, zero: Tensor | float, axis: int, block: int, dtype: torch.dtype
) -> Tensor:
    """Return the codes of values."""
    scale, zero = (along_axis(torch.as_tensor(one), values, axis, block) for one in (scale, zero))
    low = LOWEST[dtype]
    return ((values / scale).round() + zero).clamp(low, low + 2 ** WIDTHS.get(dtype, 32) - 1).to(dtype)


def along_axis(factors: Tensor, values: Tensor, axis: int, block: int) -> Tensor:
    """Return factors along one axis in the shape that multiplies values."""
    if factors.numel() == 1:
        return factors.reshape(())
    if block:
        return factors.repeat_interleave(block, axis).narrow(axis, 0, values.shape[axis])
    return factors.reshape([-1 if place == axis else 1 for place in range(values.dim())])


def grid_axis(node: Node) -> dict[str, int]:
    axis = int(node.attribute("axis", 1))
    return {"axis": axis % max(1, node.rank()), "block": int(node.attribute("block_size", 0))}


def dequantize(node: Node) -> Made:
    zero: Any = node.value(2) if node.has(2) else 0
    return node.applied(decoded_values, [node.value(0), node.value(1), zero], **grid_axis(node))


def quantize(node: Node) -> Made:
    zero: Any = node.value(2) if node.has(2) else 0
    dtype = node.value(2).held[0].dtype if node.has(2) else torch.uint8
    return node.applied(coded, [node.value(0), node.value(1), zero], **grid_axis(node), dtype=dtype)


def rounding(node: Node) -> Made:
    """Return an activation quantizer, for a quantize and a dequantize operator of one grid."""
    scale, zero = node.constant(1), node.constant(2) if node.has(2) else torch.zeros(1, dtype=torch.uint8)
    if scale.numel() > 1 or zero.dtype not in WIDTHS:
        raise node.refuse("rounds an activation by several grids", "Quantize activations per tensor, to 8 or 16 bits.")
    made = nn.Identity()
    put_quantizer(made, OUTPUT, Affine(float(scale), int(zero) - LOWEST[zero.dtype], WIDTHS[zero.dtype]))
    return Made((made,), (node.value(0),))


RULES: dict[str, Rule] = {"DequantizeLinear": dequantize, "QuantizeLinear": quantize, "Rounding": rounding}
