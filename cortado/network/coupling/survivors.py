"""Survivors: which of the original network's channels a module of a cut network still gives."""

import numpy as np
from torch import Tensor, fx, nn

from cortado.errors import BadNetwork
from cortado.network.coupling.capture import capture
from cortado.network.coupling.cut import gives
from cortado.network.coupling.groups import tracked_axes
from cortado.network.coupling.walk import Walked, walk_network


def surviving_channels(
    network: nn.Module, example: object, survivors: dict[str, Tensor], paths: list[str]
) -> dict[str, Tensor]:
    """Return, by path, the indices of the original channels that modules still give, for those that lost some.

    `survivors` has them for the layers that were cut. Any other module (an activation, a block with a residual sum) has
    those of a layer whose channels reach its output in the same order. A module is missing where the network cannot be
    traced, or where its channels come from several such layers, as after a concatenation.
    """
    found = {path: survivors[path] for path in paths if path in survivors}
    others = [path for path in paths if path not in survivors]
    if not others or not survivors:
        return found
    try:
        walked = walk_network(capture(network, example))
    except BadNetwork:
        return found
    sources = [(axis, survivors[path]) for path, axis in cut_axes(network, walked, survivors)]
    for path in others:
        axes = output_axes(walked, path)
        same = next((kept for axis, kept in sources if any(np.array_equal(axis, other) for other in axes)), None)
        if same is not None:
            found[path] = same
    return found


def cut_axes(network: nn.Module, walked: Walked, survivors: dict[str, Tensor]) -> list[tuple[str, np.ndarray]]:
    """Return the path and the resolved axis of outputs of each layer that was cut."""
    modules = dict(network.named_modules(remove_duplicate=False))
    found = []
    for (node, place), axis in tracked_axes(walked).items():
        for full in walked.captured.tensors[node]:
            path, _, name = full.rpartition(".")
            if path in survivors and gives(modules[path], name, place) and len(axis) == len(survivors[path]):
                found.append((path, axis))
    return found


def output_axes(walked: Walked, path: str) -> list[np.ndarray]:
    """Return the resolved axes of what the module at `path` gives: of the last operator that ran in it."""
    inside = [node for node in walked.captured.graph.nodes if path in enclosing(node)]
    known = walked.known.get(inside[-1]) if inside else None
    if not known or isinstance(known[0], list):
        return []
    resolved = [walked.variables.resolve(axis) for axis in known]  # type: ignore[arg-type]
    return [axis for axis in resolved if axis is not None]


def enclosing(node: fx.Node) -> list[str]:
    """Return the paths of all modules in whose forward an operator ran."""
    stack = node.meta.get("nn_module_stack") or {}
    return [path.removeprefix("L['self'].") for path, _ in stack.values()]
