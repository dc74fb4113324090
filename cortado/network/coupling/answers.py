"""Outputs of a network on its example, and the difference between two sets of outputs."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cortado.network.coupling.capture import quiet_and_unfused
from cortado.running.eval_mode import eval_mode, keeping_buffers
from cortado.running.trees import tensors_in


def flat_outputs(network: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> list[Tensor]:
    """Return the outputs as a flat list, in eval mode with fixed random numbers; restores modes and buffers."""
    with quiet_and_unfused(), keeping_buffers(network), eval_mode(network):
        return output_tensors(network(*inputs[0], **inputs[1]))


def output_tensors(found: Any) -> list[Tensor]:
    """Return the tensors in an output, in order, from any containers."""
    return [tensor for leaf in pytree.tree_leaves(found) for tensor in tensors_in(leaf)]


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Return the largest difference between two lists of tensors, relative to the largest entry of `wanted`.

    Infinite entries, as in masks, must be equal. Other non-finite entries, unequal lengths or shapes, and empty
    lists, which would hide any change, give infinity.
    """
    if not wanted or [value.shape for value in found] != [value.shape for value in wanted]:
        return math.inf
    return max((tensor_difference(a, b) for a, b in zip(found, wanted, strict=True)))


def tensor_difference(found: Tensor, wanted: Tensor) -> float:
    """Return `difference` for two tensors of the same shape."""
    found, wanted = (
        (torch.view_as_real(value) if value.is_complex() else value).detach().double().cpu()
        for value in (found, wanted)
    )
    finite = torch.isfinite(wanted)
    if not bool((torch.isfinite(found) == finite).all()) or not torch.equal(found[~finite], wanted[~finite]):
        return math.inf
    if not bool(finite.any()):
        return 0.0
    largest = float(wanted[finite].abs().max())
    far = float((found[finite] - wanted[finite]).abs().max())
    return far / largest if largest else far
