"""Blocks: modules that could be removed because their output has the shape of their input."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import nn

from cortado.errors import BadNetwork
from cortado.network.graph.trace import call_with, device_of, trace, undisturbed
from cortado.parts.blocks.block import holder_of, innermost
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.forms.attach import attached_names
from cortado.parts.part import Part, is_container
from cortado.running.trees import tensors_in, to_device


def find_blocks(network: nn.Module, example: Any) -> list[str]:
    """Return the paths of the blocks of `network`, in network order, none inside another.

    A block has inner modules and a matrix or kernel, is called once with a tensor, and returns one of the same shape
    and dtype; the network must run on `example` without it. Where several modules of one class stand in a list (the
    blocks of a stage, the layers of an encoder), these are the blocks and the module around them is a container;
    otherwise the outermost candidate is the block. A chain of layers (nn.Sequential) is not a block itself. Raises
    BadNetwork when the network fails on the example.
    """
    able = [path for path in keeping_shape(network, example) if runs_without(network, path, example)]
    listed = [path for path in able if has_siblings(network, path)]
    able = [path for path in able if not any(one.startswith(path + ".") for one in listed)]
    # Modules inside a block that changes the shape are not blocks either.
    kinds = {type(innermost(network.get_submodule(path))) for path in listed}
    closed = [path for path, layer in network.named_modules() if type(layer) in kinds]
    able = [path for path in able if not any(path.startswith(one + ".") for one in closed)]
    return [path for path in able if not any(path.startswith(other + ".") for other in able)]


def keeping_shape(network: nn.Module, example: Any) -> list[str]:
    """Return the modules that may be blocks by their structure and their input and output shapes."""
    places = Counter(id(layer) for _, layer in network.named_modules(remove_duplicate=False))
    matrices = sum(has_matrix(layer) for layer in network.modules())
    chosen = [
        (path, layer)
        for path, layer in network.named_modules()
        if path and places[id(layer)] == 1 and is_composed(layer) and 0 < matrices_in(layer) < matrices
    ]
    graph = trace(network, example)
    # A block around the module has the same path.
    return [path for path, own in chosen if [call.alike for call in graph.of(path) if call.layer is own] == [True]]


def is_composed(layer: nn.Module) -> bool:
    """Return whether a module has inner modules, parts aside, and does more than call them in sequence."""
    inside = [child for child in layer.children() if not isinstance(child, Part)]
    return bool(inside) and not isinstance(layer, Part) and type(layer).forward is not nn.Sequential.forward


def has_matrix(layer: nn.Module) -> bool:
    """Return whether a module owns a parameter of two dimensions or more, in a form or not."""
    shapes = [p.shape for p in layer.parameters(recurse=False)]
    shapes += [layer._modules[f"held_{name}"].shape for name in attached_names(layer)]  # type: ignore[union-attr, misc]
    return not isinstance(layer, Part) and any(len(shape) > 1 for shape in shapes)


def matrices_in(layer: nn.Module) -> int:
    """Return the number of modules in it that own one."""
    return sum(has_matrix(part) for part in layer.modules())


def has_siblings(network: nn.Module, path: str) -> bool:
    """Return whether another module of its class stands next to it in a list or a chain."""
    parent, _, name = path.rpartition(".")
    above, layer = holder_of(network.get_submodule(parent), name), innermost(network.get_submodule(path))
    beside = [child for child in above.children() if type(innermost(child)) is type(layer)]
    return len(beside) > 1 and is_container(above)


def runs_without(network: nn.Module, path: str, example: Any) -> bool:
    """Return whether the network's output shapes stay the same when this module is bypassed."""
    inputs = to_device(example, device_of(network))
    with undisturbed(network):
        wanted = [value.shape for value in tensors_in(call_with(network, inputs))]
        try:
            with left_out(network, path):
                return [value.shape for value in tensors_in(call_with(network, inputs))] == wanted
        except BadNetwork:
            return False


@contextlib.contextmanager
def left_out(network: nn.Module, path: str) -> Iterator[None]:
    """Bypass the module at `path` inside the block."""
    parent, _, name = path.rpartition(".")
    above = holder_of(network.get_submodule(parent), name)
    block = above._modules[name]
    above._modules[name] = Bypass()
    try:
        yield
    finally:
        above._modules[name] = block
