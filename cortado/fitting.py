"""Fitting: a module that Cortado puts on a layer of the user's - what holds a weight, or rounds a signal."""

from torch import nn


class Fitting(nn.Module):
    """Marks modules that are no part of the network as its author wrote it."""

    def stepped(self) -> None:
        """What must be done after every step of an optimizer: some values in training have bounds."""


def inside_fittings(network: nn.Module) -> set[int]:
    """The ids of all fittings of a network and of everything in them."""
    return {id(part) for module in network.modules() if isinstance(module, Fitting) for part in module.modules()}


def stepped(network: nn.Module) -> None:
    """Tell all fittings of a network, those inside others too, that an optimizer has made a step."""
    for module in network.modules():
        if isinstance(module, Fitting):
            module.stepped()


def own_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that the author of a network wrote, by their first path, in order."""
    inside = inside_fittings(network)
    return {path: module for path, module in network.named_modules() if id(module) not in inside}
