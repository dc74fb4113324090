"""Trial: cut a copy of the network whose tensors have shapes but no values, to find code that cannot follow."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cortado.layers.widths import match_widths
from cortado.network.coupling.attribute import Edits, set_attributes
from cortado.network.coupling.capture import Captured, code_line, first_line, quiet_and_unfused, unattached_copy
from cortado.network.coupling.groups import Groups
from cortado.network.coupling.tagged import Listener, Seen, tag_numbers
from cortado.network.graph.axes.step import module_of, node_shape
from cortado.network.graph.axes.variables import Gone


@dataclass(frozen=True)
class Failure:
    """The failure of a trial: message, running module and line of user code."""

    message: str
    module: str
    line: str


@contextlib.contextmanager
def fake_copy(network: nn.Module) -> Iterator[tuple[nn.Module, FakeTensorMode]]:
    """Yield a copy of a network on fake tensors; unfused attention, no warnings, no gradients."""
    with quiet_and_unfused(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield unattached_copy(network), mode


@contextlib.contextmanager
def meta_copy(network: nn.Module) -> Iterator[nn.Module]:
    """Yield a copy on torch's meta device: many times faster than fake tensors, for code that names no device."""
    with quiet_and_unfused(), torch.device("meta"):
        duplicate = unattached_copy(network)
        made: dict[int, Any] = {}
        for module in duplicate.modules():
            for slots in (module._parameters, module._buffers):
                for name, value in slots.items():
                    if value is not None:
                        empty = made.setdefault(id(value), torch.empty_like(value, device="meta"))
                        slots[name] = nn.Parameter(empty, False) if slots is module._parameters else empty
            if isinstance(module, nn.RNNBase):
                module.__dict__["_flat_weights"] = [module._parameters.get(key) for key in module._flat_weights_names]
        yield duplicate


def tagged_numbers(network: nn.Module, captured: Captured) -> Seen:
    """Return the tagged numbers that reach torch's functions, with their attributes, up to any failure."""
    inputs = captured.program.example_inputs
    with meta_copy(network) as duplicate:
        tag_numbers(duplicate)
        with Listener(duplicate) as recorder:
            if run_quietly(duplicate, *meta_inputs(inputs)) is None:
                return recorder.seen
    with fake_copy(network) as (duplicate, mode):
        tag_numbers(duplicate)
        with Listener(duplicate) as recorder:
            run_quietly(duplicate, *fake_inputs(inputs, mode))
        return recorder.seen


def attempt(network: nn.Module, groups: Groups, gone: Gone, edits: Edits) -> Failure | None:
    """Run a copy of the network with the tensor shapes and attributes that a cut would give it; return the failure,
    if any.

    The meta device is tried first. Code that fails there may only have mixed devices, so fake tensors decide.
    """
    inputs = groups.walked.captured.program.example_inputs
    with meta_copy(network) as duplicate:
        resize(duplicate, groups, gone, edits)
        if run_quietly(duplicate, *meta_inputs(inputs)) is None:
            return None
    with fake_copy(network) as (duplicate, mode):
        resize(duplicate, groups, gone, edits)
        return run_quietly(duplicate, *fake_inputs(inputs, mode))


def resize(duplicate: nn.Module, groups: Groups, gone: Gone, edits: Edits) -> None:
    """Give a copy's tensors the shapes after a cut, and its modules the attributes."""
    modules = dict(duplicate.named_modules(remove_duplicate=False))
    touched = []
    for node, shape in shapes_after(groups, gone).items():
        names = groups.walked.captured.tensors[node]
        path, _, name = names[0].rpartition(".")
        old = getattr(modules[path], name)
        fresh = torch.empty(shape, dtype=old.dtype, device=old.device)
        parameter = nn.Parameter(fresh, requires_grad=False) if fresh.is_floating_point() else fresh
        for full in names:
            path, _, name = full.rpartition(".")
            place(modules[path], name, parameter)
            touched.append(modules[path])
    set_attributes(duplicate, edits)
    for layer in touched:
        match_widths(layer)


def shapes_after(groups: Groups, gone: Gone) -> dict[fx.Node, tuple[int, ...]]:
    """Return the new shape of every tensor that loses entries."""
    kept = groups.kept_rows(gone)
    nodes = dict.fromkeys(node for node, _ in kept)
    return {n: tuple(len(kept.get((n, d), range(size))) for d, size in enumerate(node_shape(n))) for n in nodes}


def place(layer: nn.Module, name: str, value: Any) -> None:
    """Set a layer's tensor of that name."""
    if name in layer._parameters:
        layer._parameters[name] = value
    else:
        layer._buffers[name] = value.data if isinstance(value, nn.Parameter) else value
    if isinstance(layer, nn.RNNBase):
        layer.__dict__["_flat_weights"] = [layer._parameters.get(key) for key in layer._flat_weights_names]


def run_quietly(duplicate: nn.Module, given: Any, named: Any) -> Failure | None:
    """Run a copy on these inputs; return the failure, if any."""
    running: list[str] = []
    failed: list[str] = []

    def enter(path: str) -> Any:
        return lambda module, arguments: running.append(path)

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        if output is None and not failed:
            failed.append(running[-1])
        running.pop()

    hooks = [m.register_forward_pre_hook(enter(p)) for p, m in duplicate.named_modules()]
    hooks += [m.register_forward_hook(leave, always_call=True) for m in duplicate.modules()]
    try:
        duplicate(*given, **named)
    except Exception as error:  # noqa: BLE001 - whatever a user's forward raises, it means: not like this
        return Failure(first_line(error), failed[0] if failed else "", code_line(error))
    finally:
        for hook in hooks:
            hook.remove()
    return None


def fake_inputs(inputs: Any, mode: FakeTensorMode) -> Any:
    """Return the example inputs as fake tensors."""
    if isinstance(inputs, Tensor):
        return mode.from_tensor(inputs)
    if isinstance(inputs, dict):
        return {key: fake_inputs(value, mode) for key, value in inputs.items()}
    return type(inputs)(fake_inputs(part, mode) for part in inputs) if isinstance(inputs, (tuple, list)) else inputs


def meta_inputs(inputs: Any) -> Any:
    """Return the example inputs on the meta device."""
    return torch.utils._pytree.tree_map_only(Tensor, lambda value: torch.empty_like(value, device="meta"), inputs)


def upstream(captured: Captured, module: str) -> Iterator[fx.Node]:
    """Yield the operators of a module and all before them, the nearest first."""
    waiting = [n for n in captured.graph.nodes if n.op == "call_function" and module_of(n) == module]
    seen = set(waiting)
    while waiting:
        node = waiting.pop(0)
        yield node
        for before in node.all_input_nodes:
            if before not in seen:
                seen.add(before)
                waiting.append(before)
