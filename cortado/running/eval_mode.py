"""Evaluating: a network in eval mode for a while, and afterwards as it was."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def uncompiled(network: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Let what torch.compile made run as it was written for a while: its code does not know of hooks that came later."""
    compiled = any(
        "_orig_mod" in module._modules or module._compiled_call_impl is not None for module in network.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Keep torch off its fused attention, which skips layers and their hooks and packs padded batches in nested tensors."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients, no fused attention; afterwards every module is in its own mode again, frozen norms too."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.no_grad(), unfused(), uncompiled(network):
            yield
    finally:
        # Some modules do more than note the mode.
        network.train(modes[0][1])
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def keeping_buffers(network: nn.Module) -> Iterator[None]:
    """Buffers that run on or are set again meanwhile are the same tensors with the same values afterwards."""
    kept = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, before in kept:
                module._buffers[name] = buffer
                # An expanded buffer cannot be written to, by the network neither.
                if buffer is not None and before is not None and not buffer.is_meta and not torch.equal(buffer, before):
                    buffer.copy_(before)


def train_mode(network: nn.Module, statistics: str = "moving") -> nn.Module:
    """The network in training mode; where `statistics` are "kept", batch norms go on as in eval mode.

    What a trained network has stored is seldom what its batches give now, and some hundred steps are too few to get used
    to the new statistics: a short recovery keeps them, and lets gains and shifts learn.
    """
    network.train()
    for module in network.modules() if statistics == "kept" else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return network
