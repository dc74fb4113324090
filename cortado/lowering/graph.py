"""Graph: a network as a graph of torch operators for any batch size, and helpers for rewriting it."""

import contextlib
import functools
import inspect
import itertools
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from cortado.errors import BadNetwork
from cortado.lowering.integers import tidy
from cortado.network.graph.trace import device_of, undisturbed
from cortado.running.brought import traceable
from cortado.running.call import call_arguments
from cortado.running.trees import map_tensors, tensors_in, to_device, without_objects

LINE = re.compile(r'File "([^"]+)", line (\d+)')


def two_samples(example: Any) -> Any:
    """Return the example with a batch of at least two: a trace with one sample fixes the batch size to one."""
    tensors = tensors_in(example)
    if not tensors or tensors[0].dim() == 0:
        raise BadNetwork("lowering: the example has no batch axis. Pass a tensor, a tuple or a dict, samples first.")
    if tensors[0].shape[0] != 1:
        return example
    return map_tensors(lambda part: torch.cat([part, part]) if has_batch(part, 1) else part, example)


def one_sample(example: Any) -> Any:
    """Return the example with a batch of one."""
    return map_tensors(lambda part: part[:1] if part.dim() else part, example)


def has_batch(part: Any, batch: int) -> bool:
    """Return whether a part of the example has `batch` samples on its first axis."""
    return isinstance(part, Tensor) and part.dim() > 0 and part.shape[0] == batch


def batch_shapes(network: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Return torch.export's dynamic shapes, by the name of each argument of forward.

    A tensor's first axis is the batch if it is as long as that of the first tensor.
    """
    batch = torch.export.Dim("batch", min=1)
    count = tensors_in((positional, named))[0].shape[0]
    bound = inspect.signature(network.forward).bind(*positional, **named)
    return {
        name: pytree.tree_map(lambda leaf: {0: batch} if has_batch(leaf, count) else None, part)
        for name, part in bound.arguments.items()
    }


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Suppress the warnings and log lines of exporters about their internals."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("torch.onnx", "torch.export"))}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


@contextlib.contextmanager
def tensors_only(network: nn.Module) -> Iterator[None]:
    """Let the network leave other objects, such as a cache of keys and values, out of its outputs inside the block."""
    forward, own = network.forward, network.__dict__.get("forward")

    @functools.wraps(forward)
    def returning_tensors(*positional: Any, **named: Any) -> Any:
        return without_objects(forward(*positional, **named))

    network.__dict__["forward"] = returning_tensors
    try:
        yield
    finally:
        network.__dict__.pop("forward")
        if own is not None:
            network.__dict__["forward"] = own


def exported(network: nn.Module, example: Any, any_batch: bool = True) -> torch.export.ExportedProgram:
    """Return the network in eval mode as exported by torch.export, for any batch size or only the example's.

    Raises BadNetwork with the source line that blocks the export, where torch names one.
    """
    positional, named = call_arguments(to_device(two_samples(example) if any_batch else example, device_of(network)))
    try:
        with undisturbed(network), traceable(network), tensors_only(network), quiet_exporters():
            shapes = batch_shapes(network, positional, named) if any_batch else None
            program = torch.export.export(network, positional, named, dynamic_shapes=shapes)
            tidy(program.graph)
            program.graph_module.recompile()
            return program
    except Exception as error:
        raise BadNetwork(trace_refusal(network, error)) from error


def trace_refusal(network: nn.Module, error: Exception) -> str:
    """Return one or two sentences on why a network cannot be traced."""
    text = str(error)
    if isinstance(error, BadNetwork):
        return text
    lines = [found for found in LINE.findall(text) if "/torch/" not in found[0]]
    where = f" at {lines[-1][0]}, line {lines[-1][1]}" if lines else ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    fixed = "Constraints violated" in text or "specialized" in text
    way_out = (
        "It fixes its batch: take it from the input, as in x.shape[0], instead."
        if fixed
        else "Register that class with torch.export.register_dataclass, or let the network return a tuple or a dict."
        if "register a pytree" in text
        else "Rewrite that line without value-dependent control flow, or move it out of the network."
    )
    message = first[:300].partition(" If this type holds")[0]
    return f"lowering: {type(network).__name__} cannot be traced by torch.export{where}: {message} {way_out}"


def graph_of(network: nn.Module, example: Any) -> fx.GraphModule:
    """Return the network as a module whose forward is a graph of torch operators; parameters keep their names.

    Raises BadNetwork when torch.export cannot trace it.
    """
    return float_graph(exported(network, example))


def float_graph(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """Return an exported program as an ordinary graph module that supports eval mode and copying."""
    with quiet_exporters():
        module = program.module(check_guards=False)
        return fx.GraphModule(module, module.graph).eval()


def tensor_at(network: nn.Module, node: Any) -> Tensor | None:
    """Return the parameter or buffer that a graph node reads; None for computed values."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    path, _, name = str(node.target).rpartition(".")
    return getattr(network.get_submodule(path), name)


def free_name(network: nn.Module, kind: str) -> str:
    """Return the first of kind_0, kind_1, ... that no module of the network has."""
    return next(name for number in itertools.count() if not hasattr(network, name := f"{kind}_{number}"))


def drop_unread(network: fx.GraphModule) -> None:
    """Remove nodes, parameters and modules that nothing reads."""
    network.graph.eliminate_dead_code()
    read = {str(node.target) for node in network.graph.nodes if node.op in ("get_attr", "call_module")}
    for path, module in list(network.named_modules()):
        inside = f"{path}." if path else ""
        if path in read:
            continue
        for store in (module._parameters, module._buffers):
            for name in [name for name in store if f"{inside}{name}" not in read]:
                if not any(f"{inside}{name}".startswith(f"{called}.") for called in read):
                    del store[name]
    network.delete_all_unused_submodules()
    network.graph.lint()
    network.recompile()
