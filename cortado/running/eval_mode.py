"""Eval mode: put a network in eval mode and restore it afterwards."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def uncompiled(network: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Run code made by torch.compile eagerly inside the block: compiled code does not see hooks added later."""
    compiled = any(
        "_orig_mod" in module._modules or module._compiled_call_impl is not None for module in network.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Disable torch's fused attention, which skips layers and their hooks and packs padded batches in nested tensors."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Use eval mode, no gradients and no fused attention; restore every module's mode, frozen norms included."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.no_grad(), unfused(), uncompiled(network):
            yield
    finally:
        # Some modules override train().
        network.train(modes[0][1])
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def keeping_buffers(network: nn.Module) -> Iterator[None]:
    """Restore all buffers afterwards - the same tensors with the same values - if they are updated or replaced."""
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
                # An expanded buffer cannot be written to, not even by the network.
                if buffer is not None and before is not None and not buffer.is_meta and not torch.equal(buffer, before):
                    buffer.copy_(before)


@contextlib.contextmanager
def copied_buffers(network: nn.Module) -> Iterator[None]:
    """Run on copies of all buffers, which are dropped afterwards.

    Unlike `keeping_buffers` it writes to no buffer, as what an earlier pass has kept for its gradient must not change.
    """
    kept = [(module, dict(module._buffers)) for module in network.modules()]
    copies: dict[int, Tensor] = {}
    try:
        for module, buffers in kept:
            for name, buffer in buffers.items():
                if buffer is not None:
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
        yield
    finally:
        for module, buffers in kept:
            module._buffers.clear()
            module._buffers.update(buffers)


def train_mode(network: nn.Module, statistics: str = "moving") -> nn.Module:
    """Return the network in training mode; with `statistics` "kept", batch norms stay in eval mode.

    A network's stored statistics seldom match those of its current batches, and a few hundred steps are too few to
    adapt to new ones: short recoveries keep the stored ones and train only scales and shifts.
    """
    network.train()
    for module in network.modules() if statistics == "kept" else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return network
