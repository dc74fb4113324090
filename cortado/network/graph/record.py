"""Record: one operator that ran, and one call of a module."""

from dataclasses import dataclass
from typing import Any

from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One operator that ran.  `arguments` are its arguments, with every tensor replaced by its shape."""

    name: str
    arguments: tuple[Any, ...]
    outputs: tuple[Shape, ...]
    pointwise: bool = False
    view: bool = False
    reduction: bool = False
    decoding: bool = False
    """Whether it ran inside a form, to compute the dense weight."""

    @property
    def short_name(self) -> str:
        """Return the name without library, overload and the "_" of in-place versions; in full for other libraries."""
        library, _, rest = self.name.partition(".")
        return rest.partition(".")[0].removesuffix("_") if library == "aten" else self.name


@dataclass(frozen=True)
class Call:
    """One call of a module: `index` counts calls in the order they began, `paths` has every name of the module."""

    index: int
    paths: tuple[str, ...]
    layer: nn.Module
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    operators: tuple[Operator, ...]

    @property
    def path(self) -> str:
        """Return the first name of the module; the network itself is ""."""
        return self.paths[0]

    @property
    def kind(self) -> str:
        """Return the class name of the module."""
        return type(self.layer).__name__
