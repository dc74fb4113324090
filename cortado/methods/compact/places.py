"""Places: the convolutions in whose place a block can stand, and what is fitted there."""

from collections.abc import Callable
from typing import Any

from cortado.methods.factorize.targets import Target, find_targets
from cortado.methods.needs import Need
from cortado.network.view import View
from cortado.parts.activations.quantizer import sites
from cortado.parts.blocks.block import Block, brought_along
from cortado.task.task import Task


def find_convolutions(view: View, where: str) -> list[Target]:
    """Return the ungrouped, zero-padded convolutions over two axes that `where` selects, that are called and not shared.

    Those with rounded activations are left out: a block does not call the layer that rounds. So are the layers that blocks
    have brought along: a file has blocks in the places of the network's own modules alone.
    """
    brought = brought_along(view.network)
    return [
        target
        for target in find_targets(view, where)
        if len(target.shape) == 4
        and len(target.weight.places) == 1
        and id(target.layer) not in brought
        and not isinstance(target.layer.padding, str)
        and not sites(target.layer)
    ]


def convolution_need(what: str, suits: Callable[[Any, Target], bool]) -> Need[list[Target]]:
    """Return the need for plain convolutions of a kind."""

    def suiting(method: Any, view: View, task: Task) -> list[Target]:
        return [target for target in find_convolutions(view, method.where) if suits(method, target)]

    return Need(what, suiting)


def stand_for(view: View, target: Target, block: Block) -> None:
    """Put a block in the place of a layer, with its number type and device, and note what it costs."""
    view.wrap(target.path, block.to(target.weight.dense()))
