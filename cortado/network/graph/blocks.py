"""Blocks: the modules of a network that could be left out, because what they give has the shape of what they take."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.layers.bypass import Bypass
from cortado.network.graph.trace import call_with, device_of, moved, undisturbed
from cortado.parts.forms.attach import attached_names
from cortado.parts.part import Part
from cortado.running.trees import tensors_in


def find_blocks(network: nn.Module, example: Any) -> list[str]:
    """The paths of the blocks of `network`, in its order, none inside another.

    A block has modules inside and a matrix or kernel, is called once with a tensor, gives one of the same shape and
    type, and the network runs on `example` without it. Where several of one class stand in a list (the blocks of a
    stage, the layers of an encoder) they are the blocks, and what has them inside is a container; else it is the
    outermost module that counts. A chain of layers (nn.Sequential) is no block itself. Raises BadNetwork when the
    network fails on the example.
    """
    able = [path for path in keeping_shape(network, example) if runs_without(network, path, example)]
    listed = [path for path in able if has_siblings(network, path)]
    able = [path for path in able if not any(one.startswith(path + ".") for one in listed)]
    # What stands inside a block that changes the shape is not a block either.
    kinds = {type(network.get_submodule(path)) for path in listed}
    closed = [path for path, layer in network.named_modules() if type(layer) in kinds]
    able = [path for path in able if not any(path.startswith(one + ".") for one in closed)]
    return [path for path in able if not any(path.startswith(other + ".") for other in able)]


def keeping_shape(network: nn.Module, example: Any) -> list[str]:
    """Modules that may be blocks by what they are and by the shapes that go in and out."""
    seen: dict[str, list[bool]] = {}

    def note(path: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            first = given[0] if given else None
            same = isinstance(first, Tensor) and isinstance(output, Tensor) and first.shape == output.shape
            seen.setdefault(path, []).append(same and first.dtype == output.dtype)  # type: ignore[union-attr]

        return hook

    places = Counter(id(layer) for _, layer in network.named_modules(remove_duplicate=False))
    matrices = sum(has_matrix(layer) for layer in network.modules())
    chosen = [
        path
        for path, layer in network.named_modules()
        if path and places[id(layer)] == 1 and is_composed(layer) and 0 < matrices_in(layer) < matrices
    ]
    modules = dict(network.named_modules())
    hooks = [modules[path].register_forward_hook(note(path)) for path in chosen]
    try:
        with undisturbed(network):
            call_with(network, moved(example, device_of(network)))
    finally:
        for hook in hooks:
            hook.remove()
    return [path for path in chosen if seen.get(path) == [True]]


def is_composed(layer: nn.Module) -> bool:
    """Whether a module has modules inside, parts aside, and does more than to call one after another."""
    inside = [child for child in layer.children() if not isinstance(child, Part)]
    return bool(inside) and not isinstance(layer, Part) and type(layer).forward is not nn.Sequential.forward


def has_matrix(layer: nn.Module) -> bool:
    """Whether a module owns a parameter of two dimensions or more, held or not."""
    shapes = [p.shape for p in layer.parameters(recurse=False)]
    shapes += [layer._modules[f"held_{name}"].shape for name in attached_names(layer)]  # type: ignore[union-attr, misc]
    return not isinstance(layer, Part) and any(len(shape) > 1 for shape in shapes)


def matrices_in(layer: nn.Module) -> int:
    """How many modules in it own one."""
    return sum(has_matrix(part) for part in layer.modules())


def has_siblings(network: nn.Module, path: str) -> bool:
    """Whether another module of its class stands beside it in a list or a chain."""
    above, layer = network.get_submodule(path.rpartition(".")[0]), network.get_submodule(path)
    beside = [child for child in above.children() if type(child) is type(layer)]
    return len(beside) > 1 and isinstance(above, (nn.Sequential, nn.ModuleList, nn.ModuleDict))


def runs_without(network: nn.Module, path: str, example: Any) -> bool:
    """Whether the network gives outputs of the same shapes when this module passes its input on."""
    inputs = moved(example, device_of(network))
    with undisturbed(network):
        wanted = [value.shape for value in tensors_in(call_with(network, inputs))]
        try:
            with left_out(network, path):
                return [value.shape for value in tensors_in(call_with(network, inputs))] == wanted
        except BadNetwork:
            return False


@contextlib.contextmanager
def left_out(network: nn.Module, path: str) -> Iterator[None]:
    """While open, the module at `path` passes its input on."""
    parent, _, name = path.rpartition(".")
    above = network.get_submodule(parent)
    block = above._modules[name]
    above._modules[name] = Bypass()
    try:
        yield
    finally:
        above._modules[name] = block
