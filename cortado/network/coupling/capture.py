"""Capture: a network's operator graph by torch.export, with the names of its tensors, without copying them."""

import contextlib
import copy
import functools
import linecache
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from cortado.errors import BadNetwork
from cortado.network.graph.trace import OWN_CODE
from cortado.parts.activations.quantizer import SIDES, drop_quantizer
from cortado.parts.forms.attach import PREFIX, attached_names, form_of, original_class
from cortado.parts.forms.form import Form
from cortado.parts.part import own_modules
from cortado.running.brought import traceable
from cortado.running.call import call_arguments
from cortado.running.eval_mode import unfused
from cortado.running.trees import tensors_in as everywhere
from cortado.running.trees import to_device


@dataclass
class Captured:
    """A traced network: its operators, and all names of each parameter and buffer in the network."""

    program: torch.export.ExportedProgram
    graph: fx.Graph
    tensors: dict[fx.Node, tuple[str, ...]]
    inputs: tuple[Any, ...]
    ties: dict[fx.Node, dict[int, Tensor]] = field(default_factory=dict)
    """For axes of weights whose form stores several indices as one: the same number for those (see Form.tied)."""
    holder: str = ""
    """The class of an output container that torch's pytrees do not know; the graph returns its tensors in a tuple."""

    def output_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the traced output tensors, flat."""
        output = next(node for node in self.graph.nodes if node.op == "output")
        values = [
            node.meta.get("val") for node in torch.utils._pytree.tree_leaves(output.args) if isinstance(node, fx.Node)
        ]
        return [tuple(value.shape) for value in values if isinstance(value, Tensor)]


def unattached_copy(network: nn.Module) -> nn.Module:
    """Return the same modules with the same tensors, without parts: a weight in a form becomes an empty tensor of its
    shape.

    No tensor of the network is copied, and changes to the copy do not reach the network.
    """
    kept = [value for module in network.modules() for value in held_tensors(tuple(module.__dict__.values()))]
    memo: dict[int, Any] = {id(t): t for t in (*network.parameters(), *network.buffers(), *kept)}
    empty: dict[int, nn.Parameter] = {}
    for module in network.modules():
        if isinstance(module, Form):
            memo[id(module)] = None
            device = next((t.device for t in module.state_dict().values()), None)
            empty[id(module)] = nn.Parameter(torch.empty(module.shape, device=device), requires_grad=False)
    duplicate = copy.deepcopy(network, memo)
    for mine, theirs in zip(network_layers(network), network_layers(duplicate), strict=True):
        for name in attached_names(mine):
            release_as(theirs, name, empty[id(form_of(mine, name))])
        for side in SIDES:
            # Quantizers change no axis.
            drop_quantizer(theirs, side)
    return duplicate.eval()


def held_tensors(value: Any) -> Iterator[Tensor]:
    """Yield tensors in nested containers that a module stores besides its parameters and buffers, such as a cache."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from held_tensors(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from held_tensors(part)


def network_layers(network: nn.Module) -> list[nn.Module]:
    """Return every module that the network's author wrote."""
    return list(own_modules(network).values())


def release_as(layer: nn.Module, name: str, value: nn.Parameter) -> None:
    """Turn a parameter of a copy that a form holds into a dense one."""
    layer._modules.pop(PREFIX + name, None)
    layer.__class__ = original_class(layer)
    layer._parameters[name] = value
    if isinstance(layer, nn.RNNBase):
        layer.__dict__["_flat_weights"] = [layer._parameters.get(key) for key in layer._flat_weights_names]


def capture(network: nn.Module, example: Any) -> Captured:
    """Trace `network` on `example` (a tensor, a tuple of arguments or a dict of them), in eval mode.

    Raises BadNetwork, with the line that blocks it, when torch.export fails.
    """
    duplicate = unattached_copy(network)
    device = next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    given, named = call_arguments(to_device(example, device))
    holders: list[str] = []
    duplicate.__dict__["forward"] = in_pytrees(duplicate.forward, holders)
    try:
        with quiet_and_unfused(), traceable(duplicate):
            program = torch.export.export(duplicate, given, named, strict=False)
    except Exception as error:  # noqa: BLE001 - whatever a user's forward does when traced, it means: not traceable
        line = code_line(error)
        raise BadNetwork(
            f"groups: {type(network).__name__} cannot be traced: {first_line(error)}{f' ({line})' if line else ''}. Methods "
            "that change no shape still work; for the others make that line independent of tensor values."
        ) from error
    tensors = names_of(program, duplicate)
    return Captured(program, program.graph, tensors, given, ties_of(network, tensors), holders[0] if holders else "")


def in_pytrees(forward: Callable[..., Any], holders: list[str]) -> Callable[..., Any]:
    """Return a forward that returns tensors in a tuple, and records the class, if torch's pytrees do not know it."""

    @functools.wraps(forward)
    def given(*positional: Any, **named: Any) -> Any:
        output = forward(*positional, **named)
        leaves = torch.utils._pytree.tree_leaves(output)
        unknown = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor) and everywhere(leaf)]
        holders.extend(unknown)
        return tuple(tensor for leaf in leaves for tensor in everywhere(leaf)) if unknown else output

    return given


@contextlib.contextmanager
def quiet_and_unfused() -> Iterator[None]:
    """Use unfused attention and no gradients, and silence warnings and torch's log.

    Seeds the random numbers, so that each run draws the same ones; the caller's random state is restored.
    """
    chatter = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad(), unfused(), torch.random.fork_rng(devices=()):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        logging.disable(chatter)


def names_of(program: torch.export.ExportedProgram, duplicate: nn.Module) -> dict[fx.Node, tuple[str, ...]]:
    """Return, for each placeholder of a parameter or buffer, all names of its tensor in the network."""
    signature = program.graph_signature
    first = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    by_tensor: dict[int, list[str]] = {}
    by_name: dict[str, Tensor] = {}
    for path, module in duplicate.named_modules(remove_duplicate=False):
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None:
                full = f"{path}.{name}" if path else name
                by_tensor.setdefault(id(value), []).append(full)
                by_name[full] = value
    found = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in first and first[node.name] in by_name:
            found[node] = tuple(by_tensor[id(by_name[first[node.name]])])
    return found


def ties_of(network: nn.Module, tensors: dict[fx.Node, tuple[str, ...]]) -> dict[fx.Node, dict[int, Tensor]]:
    """Return the axes of weights on which several indices are stored as one, by the placeholder of the weight."""
    found: dict[fx.Node, dict[int, Tensor]] = {}
    modules = dict(network.named_modules(remove_duplicate=False))
    for node, names in tensors.items():
        path, _, name = names[0].rpartition(".")
        form = form_of(modules[path], name)
        axes = {} if form is None else {axis: form.tied(axis) for axis in range(len(form.shape))}
        if any(tie is not None for tie in axes.values()):
            found[node] = {axis: tie for axis, tie in axes.items() if tie is not None}
    return found


def first_line(error: Exception) -> str:
    """Return an error's message in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def code_line(error: BaseException) -> str:
    """Return the innermost line of user code in an error's traceback: "net.py:12: if x.sum() > 0:"; "" without one."""
    found, trace = "", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if not any(part in path for part in OWN_CODE):
            code = linecache.getline(path, trace.tb_lineno).strip()
            found = f"{path.rpartition('/')[2]}:{trace.tb_lineno}: {code}"
        trace = trace.tb_next
    return found
