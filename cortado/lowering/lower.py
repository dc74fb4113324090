"""Lower: copy a network in eval mode with dense weights and folded norms, and check that outputs agree."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cortado.errors import BadNetwork, BadValue
from cortado.layers.factors import factored_network
from cortado.lowering.fold import fold_norms, put_in_place_of
from cortado.lowering.graph import graph_of
from cortado.lowering.horizontal import merge_siblings
from cortado.lowering.integers import emit_quantizers, weight_codes
from cortado.lowering.positions import gather_positions
from cortado.lowering.products import note_forms
from cortado.network.coupling.answers import difference
from cortado.network.finalize import finalized_copy
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.network.statistics.gradients import released
from cortado.parts.activations.quantizer import (
    OUTPUT,
    SIDES,
    give_quantizers,
    put_quantizer,
    quantizer_at,
    sites,
    take_quantizers,
    unrounded,
)
from cortado.parts.blocks.block import Block
from cortado.running.trees import tensors_in, to_device

TOLERANCE = 1e-4
"""Largest difference, as a share of the largest output, that float32 rounding explains."""
STEPS = 8
"""The same in units of machine epsilon, for coarser types."""


def lowered(
    network: nn.Module,
    example: Any,
    *,
    fold: bool = True,
    gather: bool = False,
    merge: bool = False,
) -> nn.Module:
    """Return a copy of `network` that computes the same and is ready to run or export; the network is left alone.

    The copy is in eval mode. Low-rank weights become the layers of their factors, all other forms and
    parametrizations become dense, and batch norms are folded into the layers before them. With `gather`, convolutions
    that lost most of their columns gather the remaining ones, which is faster in torch (see positions.py). With
    `merge`, siblings that read one input become one product and a split, and the result is a graph module (see
    horizontal.py). Outputs are compared on the example: they differ by rounding, about 1e-7 of the
    largest output in float32. Activation quantizers are disabled for the comparison and become quantize operators at
    the end (see integers.py). Linear weights remember the forms they had (see products.py).
    Raises BadNetwork when outputs differ by more than 1e-4, or eight epsilon of a coarser float type, or when the
    network fails on the example.
    """
    network = finalized_copy(network)
    rounded = sites(network)
    if rounded and (gather or merge):
        raise BadValue("lowering: a network with activation quantizers runs in integers. Omit gather and merge.")
    copy = dense(network)
    taken = take_quantizers(copy)
    if fold:
        # A layer whose output is quantized before the norm cannot absorb it.
        fold_norms(copy, example, {path for path, side in taken if side == OUTPUT})
    if gather:
        gather_positions(copy, example)
    copy = copy.requires_grad_(False)
    if merge:
        graph = graph_of(copy, example)
        copy = graph if merge_siblings(graph) else copy
    with unrounded(network):
        wanted = outputs(network, example)
    far, tolerance = difference(outputs(copy, example), wanted), rounding_share(wanted)
    if not far <= tolerance:
        raise BadNetwork(
            f"lowering: rewriting {type(network).__name__} to run fast changed its outputs by {far:.2g} of the largest one; "
            f"at most {tolerance:g} is rounding. Pass fold=False, gather=False, merge=False, and report a bug."
        )
    source = factored_network(network)
    if rounded:
        give_quantizers(copy, taken)
        emit_quantizers(copy, example, weight_codes(source))
    note_forms(copy, source)
    return copy


def dense(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode without forms or parametrizations; tied weights stay tied.

    A low-rank layer becomes the layers of its factors, a block the layer that computes the same, if there is one.
    """
    copy = released(factored_network(network))
    for block in [module for module in copy.modules() if isinstance(module, Block)]:
        layer = block.as_layer()
        if layer is not None:
            put_in_place_of(copy, block, with_quantizers(layer, block))
    for layer in list(copy.modules()):
        if parametrize.is_parametrized(layer):
            detach_forms(layer)
    return copy


def with_quantizers(layer: nn.Module, block: Block) -> nn.Module:
    """Return the layer that computes the same as a block, with the block's activation quantizers."""
    for side in SIDES:
        quantizer = quantizer_at(block, side)
        if quantizer is not None:
            put_quantizer(layer, side, quantizer)
    return layer


def detach_forms(layer: nn.Module) -> None:
    """Give a parametrized layer of a copy its own class and plain weights again.

    torch's own function changes the class that the layer shares with the network it was copied from.
    """
    values = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}  # type: ignore[union-attr]
    layer.__class__ = type(layer).__mro__[1]
    del layer._modules["parametrizations"]
    for name, value in values.items():
        layer.register_parameter(name, nn.Parameter(value))


def outputs(network: nn.Module, example: Any) -> list[Tensor]:
    """Return the tensors in a network's output for the example, in eval mode, in order."""
    with undisturbed(network):
        return tensors_in(call_with(network, to_device(example, device_of(network))))


def rounding_share(wanted: list[Tensor]) -> float:
    """Return the share of the largest output that rounding explains, for the coarsest float type among the outputs."""
    steps = [torch.finfo(value.dtype).eps for value in wanted if value.is_floating_point()]
    return max(TOLERANCE, STEPS * max(steps, default=0.0))
