"""Feeding: what the output of a layer is computed from, and training that alone."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.parts.part import Part, own_modules
from cortado.running.trees import to_device
from cortado.training.learning import frozen
from cortado.training.objectives.layer_pairs import tensor_of_tap
from cortado.training.taps import TapHooks, path_and_call


@dataclass(frozen=True)
class Feeding:
    """What a layer gave for an example, and what that was computed from.

    `parameters` are the trainable ones that the output depends on, `others` all parameters besides; `later` are the modules
    that began to run when the layer was done, or never.
    """

    output: Tensor
    parameters: tuple[nn.Parameter, ...]
    others: tuple[nn.Parameter, ...]
    later: tuple[nn.Module, ...]


def feeding(network: nn.Module, tap: str, example: Any, owner: str = "the network") -> Feeding:
    """Run a network on an example, in eval mode, and return what feeds the layer at `tap`: a path, or path#2 for a second call.

    Dependence follows the gradient of the output, so a weight that two layers share feeds if one of them does. `owner` is
    for messages. Raises BadValue for a layer that is missing or does not run, BadNetwork for one that gives no floats.
    """
    hooks, (path, number) = TapHooks(network, [tap], owner), path_and_call(tap)
    modules = own_modules(network).values()
    done: dict[int, int] = {}

    def begin(module: nn.Module, inputs: Any) -> None:
        done.setdefault(id(module), len(hooks.given[path]))

    begins = [module.register_forward_pre_hook(begin) for module in modules]
    try:
        with undisturbed(network), torch.enable_grad():
            call_with(network, to_device(example, device_of(network)))
            output = tensor_of_tap(owner, hooks.collect()[tap], tap)
            used = parameters_behind(output, network)
    finally:
        hooks.remove()
        for one in begins:
            one.remove()
    known = {id(one) for one in used}
    others = tuple(one for one in network.parameters() if id(one) not in known)
    last = number or 1
    return Feeding(output.detach(), used, others, tuple(one for one in modules if done.get(id(one), last) >= last))


def parameters_behind(output: Tensor, network: nn.Module) -> tuple[nn.Parameter, ...]:
    """Return the trainable parameters of a network that a tensor depends on."""
    able = [one for one in network.parameters() if one.requires_grad]
    if not able or not output.requires_grad:
        return ()
    slopes = torch.autograd.grad(output.sum(), able, allow_unused=True)
    return tuple(one for one, slope in zip(able, slopes, strict=True) if slope is not None)


@contextlib.contextmanager
def only_feeding(fed: Feeding) -> Iterator[None]:
    """Train only the parameters that feed a layer inside the context.

    All others are frozen. They and the buffers of later modules, such as running statistics, have their values of before
    afterwards, bit for bit.
    """
    kept = [*fed.others, *(buffer for module in fed.later for buffer in own_buffers(module))]
    before = [one.detach().clone() for one in kept]
    try:
        with frozen(fed.others):
            yield
    finally:
        with torch.no_grad():
            for one, value in zip(kept, before, strict=True):
                one.copy_(value)


def own_buffers(module: nn.Module) -> list[Tensor]:
    """Return the buffers of a module itself, and of the parts that hold its weights and round its activations."""
    parts = [child for child in module.children() if isinstance(child, Part) and not child.stands_in]
    return [*module.buffers(recurse=False), *(buffer for part in parts for buffer in part.buffers())]
