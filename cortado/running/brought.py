"""Brought: check that a command can work on a network."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from cortado.errors import BadNetwork

REMOVERS = {WeightNorm: "torch.nn.utils.remove_weight_norm", SpectralNorm: "torch.nn.utils.remove_spectral_norm"}


def accept(network: Any, where: str) -> list[str]:
    """Return notes for the report about the network; `where` is the calling command.

    Detaches weights that a torch hook computes from others, so that the network can be copied; the hook recomputes
    them at each call. Raises BadNetwork for anything but a network, and for networks that are scripted, lack shapes,
    or are quantized by torch or another library.
    """
    if not isinstance(network, nn.Module):
        raise BadNetwork(
            f"{where}: the network must be a torch.nn.Module, got {type(network).__name__}. Pass the module itself."
        )
    masked, computed = [], []
    for path, module in network.named_modules():
        reason = network_refusal(module)
        if reason:
            raise BadNetwork(f"{where}: {path or 'the network'} ({type(module).__name__}) {reason}")
        for hook, name in weight_hooks(module):
            masked += [f"{path}.{name}".lstrip(".")] if isinstance(hook, prune.BasePruningMethod) else []
            computed += [(f"{path}.{name}".lstrip("."), REMOVERS[type(hook)])] if type(hook) in REMOVERS else []
            made = module.__dict__.get(name)
            if isinstance(made, Tensor) and not made.is_leaf:
                module.__dict__[name] = made.detach()
        if parametrize.is_parametrized(module):
            remover = "torch.nn.utils.parametrize.remove_parametrizations"
            computed += [(f"{path}.{name}".lstrip("."), remover) for name in module.parametrizations]  # type: ignore[union-attr]
    return notes_on(masked, computed)


def network_refusal(module: nn.Module) -> str:
    """Return why a network with this module cannot be used, and what to do; "" where it can."""
    tensors = [value for value in (*module._parameters.values(), *module._buffers.values()) if value is not None]
    if isinstance(module, torch.jit.ScriptModule):
        return "is TorchScript, which cannot be changed. Pass the nn.Module that was scripted or traced."
    if any(is_lazy(value) for value in tensors):
        return "has no shapes yet. Run the network once on a batch first, in its factory function too: network(inputs)."
    rooms = type(module).__module__.split(".")
    torchs = (
        rooms[:3] == ["torch", "ao", "nn"]
        and "quantized" in rooms
        and not {"reference", "functional_modules"} & {*rooms}
    )
    others = {type(value).__module__.partition(".")[0] for value in tensors} & {"torchao", "bitsandbytes"}
    if torchs or others or rooms[0] == "bitsandbytes" or any(value.is_quantized for value in tensors):
        return "is quantized already: its weights are no longer floats. Pass the float network it was made from."
    return ""


def weight_hooks(module: nn.Module) -> Iterator[tuple[Any, str]]:
    """Yield each torch hook that computes a tensor of a module before it runs, with the tensor's name."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            yield hook, str(hook._tensor_name)
        elif isinstance(hook, (WeightNorm, SpectralNorm)):
            yield hook, hook.name


def notes_on(masked: list[str], computed: list[tuple[str, str]]) -> list[str]:
    """Return report notes about torch's pruning masks and computed weights."""
    notes = []
    if masked:
        notes.append(
            f"{', '.join(masked[:3])} ({len(masked)} in all) have a torch.nn.utils.prune mask, which is stored next to the "
            "weights: call torch.nn.utils.prune.remove to write the zeros into them and make the file smaller"
        )
    if computed:
        names, removers = (
            ", ".join(name for name, _ in computed[:3]),
            " or ".join(dict.fromkeys(way for _, way in computed)),
        )
        notes.append(
            f"{names} ({len(computed)} in all) are computed from other parameters at each call; methods change those. "
            f"{removers} turns them into weights that every method supports"
        )
    return notes


@contextlib.contextmanager
def blaming(notes: list[str]) -> Iterator[None]:
    """Append the network's notes to any BadNetwork raised inside the block."""
    try:
        yield
    except BadNetwork as error:
        raise (type(error)(" ".join([str(error), *(f"{note}." for note in notes)])) if notes else error) from error


@contextlib.contextmanager
def traceable(network: nn.Module) -> Iterator[None]:
    """Let DistributedDataParallel call its inner module directly: torch.export refuses its own forward."""
    wrappers = [module for module in network.modules() if isinstance(module, DistributedDataParallel)]
    try:
        for wrapper in wrappers:
            wrapper.__dict__["forward"] = wrapper.module.forward
        yield
    finally:
        for wrapper in wrappers:
            wrapper.__dict__.pop("forward", None)
