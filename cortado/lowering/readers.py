"""Readers: which layer made a tensor and which layers read it, recorded in one run of a network."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.running.trees import tensors_in, to_device

OUTSIDE = -1
"""The reader id for operators outside any module, and for the caller."""


@dataclass
class ReadLog:
    """The record of one run.  Tensors and layers are keyed by id; the tensors are kept alive so that ids stay unique."""

    calls: dict[int, int] = field(default_factory=dict)
    """Layer to the number of its calls."""
    made: dict[int, list[Tensor]] = field(default_factory=dict)
    """Layer to its output tensors."""
    taken: dict[int, list[Tensor]] = field(default_factory=dict)
    """Layer to its input tensors."""
    readers: dict[int, list[int]] = field(default_factory=dict)
    """Tensor to the innermost layer that ran each operator that read it, or OUTSIDE."""
    owners: dict[int, set[int]] = field(default_factory=dict)
    """Parameter or buffer to the layers that own it; tied ones have several."""
    kept: list[Tensor] = field(default_factory=list)

    def read_only_by(self, tensor: Tensor, layer: nn.Module) -> bool:
        """Return whether `layer` is the only reader of the tensor."""
        return set(self.readers.get(id(tensor), [])) == {id(layer)}

    def called_once(self, layer: nn.Module) -> bool:
        """Return whether a layer ran exactly once."""
        return self.calls.get(id(layer), 0) == 1

    def keeps_to_itself(self, layer: nn.Module) -> bool:
        """Return whether only the layer itself, or co-owners of tied ones, read its parameters and buffers."""
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        return all(self.owners[id(value)].issuperset(self.readers.get(id(value), [])) for value in own)


class ReadListener(TorchDispatchMode):
    """Hooks track the stack of running modules; the dispatch mode sees what every operator reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read_log = ReadLog()
        self.stack: list[int] = []

    def enter(self, layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Push a module that starts to run."""
        key = id(layer)
        self.read_log.calls[key] = self.read_log.calls.get(key, 0) + 1
        self.read_log.taken.setdefault(key, []).extend(tensors_in((positional, named)))
        self.stack.append(key)

    def leave(self, layer: nn.Module, positional: tuple[Any, ...], output: Any) -> None:
        """Pop a module that has run."""
        self.stack.pop()
        self.read_log.made.setdefault(id(layer), []).extend(tensors_in(output))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        read = tensors_in((args, kwargs or {}))
        for tensor in read:
            self.read_log.readers.setdefault(id(tensor), []).append(self.stack[-1] if self.stack else OUTSIDE)
        self.read_log.kept.extend((*read, *tensors_in(output)))
        return output


def record_reads(network: nn.Module, example: Any) -> ReadLog:
    """Run `network` once on `example`, in eval mode, and return which layers made and read which tensors.

    The log keeps the tensors of the run alive.  Raises BadNetwork when the network fails.
    """
    recorder = ReadListener()
    handles = []
    try:
        for layer in network.modules():
            for own in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                recorder.read_log.owners.setdefault(id(own), set()).add(id(layer))
            handles.append(layer.register_forward_pre_hook(recorder.enter, with_kwargs=True))
            handles.append(layer.register_forward_hook(recorder.leave, always_call=True))
        with undisturbed(network), recorder:
            output = call_with(network, to_device(example, device_of(network)))
    finally:
        for handle in handles:
            handle.remove()
    for tensor in tensors_in(output):
        recorder.read_log.readers.setdefault(id(tensor), []).append(OUTSIDE)
    return recorder.read_log


def untouched(layer: nn.Module) -> bool:
    """Return whether a layer runs its class's own forward, without hooks that might see or change its activations."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    return not any(hooks) and "forward" not in layer.__dict__ and torch.nn.Module.__call__ is type(layer).__call__
