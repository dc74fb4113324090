"""Record: what happened in a run of a network - an operator ran, or a call of a module began or ended."""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One operator that ran.  `arguments` are its arguments, with every tensor replaced by its shape.

    `call` is the innermost call that ran it (-1: none), `line` the user's line that did ("net.py:12"). `reads` and `makes`
    number the values of its tensors. `decoding`: it ran inside a form, to compute the dense weight; `rounding`: inside an
    activation quantizer, whose output counts as its input. `role`, `below` and `homogeneous` are facts of this call (see
    operators/facts.py).
    """

    name: str
    arguments: tuple[Any, ...]
    outputs: tuple[Shape, ...]
    pointwise: bool = False
    view: bool = False
    reduction: bool = False
    decoding: bool = False
    rounding: bool = False
    call: int = -1
    line: str = ""
    reads: tuple[int, ...] = ()
    makes: tuple[int, ...] = ()
    role: str = ""
    below: float = 1.0
    floor: float = -math.inf
    homogeneous: tuple[int, ...] = ()

    @property
    def short_name(self) -> str:
        """Return the name without library, overload and the "_" of in-place versions; in full for other libraries."""
        library, _, rest = self.name.partition(".")
        return rest.partition(".")[0].removesuffix("_") if library == "aten" else self.name


@dataclass(frozen=True)
class Call:
    """One call of a module: `index` counts calls in the order they began, `paths` has every name of the module.

    `around` is the call inside which it ran (-1: none); `reads` and `makes` number the values of its tensors. `tensor`: it
    returns one tensor; `alike`: that has the shape and dtype of its first argument. `listed`: it is a layer, or operators
    ran in its own forward.
    """

    index: int
    paths: tuple[str, ...]
    layer: nn.Module
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    operators: tuple[Operator, ...]
    around: int = -1
    reads: tuple[int, ...] = ()
    makes: tuple[int, ...] = ()
    tensor: bool = False
    alike: bool = False
    listed: bool = True

    @property
    def path(self) -> str:
        """Return the first name of the module; the network itself is ""."""
        return self.paths[0]

    @property
    def kind(self) -> str:
        """Return the class name of the module."""
        return type(self.layer).__name__


@dataclass(frozen=True)
class Begun:
    """The call with this index began."""

    call: int


@dataclass(frozen=True)
class Ended:
    """The call with this index ended."""

    call: int


Event = Operator | Begun | Ended
