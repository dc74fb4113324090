"""Part: a module that Cortado attaches to a user's layer - a weight's form or an activation quantizer."""

from torch import nn


class Part(nn.Module):
    """Marks modules that are not part of the network as its author wrote it."""

    def after_step(self) -> None:
        """Run after every optimizer step: some values in training have bounds."""


def inside_parts(network: nn.Module) -> set[int]:
    """Return the ids of all parts of a network and of the modules inside them."""
    return {id(part) for module in network.modules() if isinstance(module, Part) for part in module.modules()}


def after_step(network: nn.Module) -> None:
    """Call `after_step` on all parts of a network, nested ones included."""
    for module in network.modules():
        if isinstance(module, Part):
            module.after_step()


def own_modules(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that the author of a network wrote, by their first path, in order."""
    inside = inside_parts(network)
    return {path: module for path, module in network.named_modules() if id(module) not in inside}
