"""Part: whatever methods leave in a network - a weight's form, an activation quantizer, or a block in a module's place."""

from abc import abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import nn

FLOATS, INTEGERS, MASK, PART = "floats", "integers", "mask", "part"
"""The kinds of arrays that a part may have; PART is a form inside it."""

Arrays = dict[str, Any]
"""The content of a part: names to tensors or to parts inside it."""


class Part(nn.Module):
    """A module that methods put into a network.  It is stored without the code of the method that made it.

    A part is described by small whole numbers (`spec`, named by `facts`) and arrays (`parts`, named with their kinds by
    `arrays`); `from_parts` rebuilds it. Its kinds are Form, ActivationQuantizer and Block.
    """

    facts: ClassVar[tuple[str, ...]] = ()
    arrays: ClassVar[dict[str, str]] = {}
    units: ClassVar[tuple[str, ...]] = ()
    """The names of its parameters that only say how large a unit is, such as the step of a grid: they learn in proportion."""
    stands_in: ClassVar[bool] = False
    """Whether the part stands in a module's place: its tensors are weights of the network like any others."""

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        """Return the entry counts of arrays unlike the weight in size.  Raises BadValue for an invalid spec."""
        return {}

    @classmethod
    def inner_shapes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, torch.Size]:
        """Return the shapes of inner parts that differ from the weight's.  Raises BadValue for an invalid spec."""
        return {}

    def spec(self) -> dict[str, int]:
        """Return small facts, as integers; by default the attributes named by `facts`."""
        return {name: int(getattr(self, name)) for name in self.facts}

    def parts(self) -> Arrays:
        """Return the tensors and inner parts that `from_parts` needs besides the facts."""
        return {}

    @classmethod
    @abstractmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> Self:
        """Return the part that `spec` and `parts` describe.  Raises BadValue when they contradict each other.

        `shape` is the weight's; parts that hold no weight ignore it.
        """

    def finalize(self) -> "Part | None":
        """Return the part after training; None where nothing remains."""
        return self

    def after_step(self) -> None:
        """Run after every optimizer step: some values in training have bounds."""


def inside_parts(network: nn.Module) -> set[int]:
    """Return the ids of all parts that hold weights or round activations, and of the modules inside them."""
    held = (module for module in network.modules() if isinstance(module, Part) and not module.stands_in)
    return {id(part) for module in held for part in module.modules()}


def is_list(module: nn.Module) -> bool:
    """Return whether a module only lists others and has no forward: torch's ModuleList and ModuleDict."""
    return type(module).forward is nn.Module.forward


def is_container(module: nn.Module) -> bool:
    """Return whether a module does nothing but run or list the modules that it holds."""
    return isinstance(module, nn.Sequential) or is_list(module)


def after_step(network: nn.Module) -> None:
    """Call `after_step` on all parts of a network, nested ones included."""
    for module in network.modules():
        if isinstance(module, Part):
            module.after_step()


def own_modules(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that run in a network, by their first path, in order: its author's, and blocks in their places."""
    inside = inside_parts(network)
    return {path: module for path, module in network.named_modules() if id(module) not in inside}
