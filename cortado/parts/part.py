"""Fitting: a module that Cortado puts on a layer of the user's - what holds a weight, or rounds an activation."""

from torch import nn


class Part(nn.Module):
    """Marks modules that are no part of the network as its author wrote it."""

    def after_step(self) -> None:
        """What must be done after every step of an optimizer: some values in training have bounds."""


def inside_parts(network: nn.Module) -> set[int]:
    """The ids of all parts of a network and of everything in them."""
    return {id(part) for module in network.modules() if isinstance(module, Part) for part in module.modules()}


def after_step(network: nn.Module) -> None:
    """Tell all parts of a network, those inside others too, that an optimizer has made a step."""
    for module in network.modules():
        if isinstance(module, Part):
            module.after_step()


def own_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that the author of a network wrote, by their first path, in order."""
    inside = inside_parts(network)
    return {path: module for path, module in network.named_modules() if id(module) not in inside}
