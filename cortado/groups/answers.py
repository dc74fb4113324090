"""Answers: what a network says to its example, and how far two answers are apart."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cortado.groups.capture import silent_and_plain


def answers(network: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> list[Tensor]:
    """The outputs, flat, in eval mode; modes and buffers are as before afterwards.  What is drawn is drawn alike."""
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        with silent_and_plain():
            found = network.eval()(*inputs[0], **inputs[1])
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return tensors_of(found)


def tensors_of(found: Any) -> list[Tensor]:
    """The tensors of an output, in order, whatever holds them."""
    return [value for value in pytree.tree_leaves(found) if isinstance(value, Tensor)]


def apart(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference over the largest value of its tensor; infinite where shapes differ."""
    if [a.shape for a in found] != [b.shape for b in wanted]:
        return math.inf
    return max((apart_in_one(a, b) for a, b in zip(found, wanted, strict=True) if b.numel()), default=0.0)


def apart_in_one(found: Tensor, wanted: Tensor) -> float:
    """The same of two tensors of one shape; entries that are not finite, as in masks, must be the same."""
    found, wanted = ((torch.view_as_real(value) if value.is_complex() else value).double() for value in (found, wanted))
    same = (found == wanted) | (found.isnan() & wanted.isnan())
    difference = torch.where(same, 0, found - wanted).abs().nan_to_num(nan=math.inf, posinf=math.inf).max()
    largest = torch.where(wanted.isfinite(), wanted, 0).abs().max()
    return float(difference / largest.clamp(min=1e-12))
