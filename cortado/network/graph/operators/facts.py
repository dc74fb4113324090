"""Facts: all that is known of one of torch's operators, by its name.

Each file of this folder states the facts of one family of operators; `table.py` looks them up.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cortado.layers.roles import FLOAT, JOIN, MOVE
from cortado.network.graph.axes.constants import Constant
from cortado.network.graph.axes.step import Step, Value
from cortado.network.graph.record import Operator

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Facts:
    """What an operator does.

    `role`: what it does to the values of an activation (layers/roles.py). `pair`: it joins two activations, and with one
    it is arithmetic on that one. `concatenates`: it joins values without changing them. `cost`: its multiply-adds; None
    where they are unknown. `axes`: how the channels of its inputs reach its output; None where nothing is known.
    `constants`: the numbers among its arguments that follow from channel counts. `homogeneous`: the places of the tensors
    among its arguments of which it passes positive factors on channels unchanged, those of one alone. `lifts_zero`: an
    entry may differ from zero where all are zero that it is computed from, on any axis; `axes` marks those of single
    axes. `layer`: builds the torch layer that computes it, from the step, the shapes of its tensors and the module that
    ran it. `below`: the factor on values below zero, from its arguments: 0 for a ReLU, 1 where values pass. `floor`:
    inputs below it give what it gives. `fills`: whether it adds other values than zeros to those that it moves.
    """

    role: str = FLOAT
    pair: bool = False
    concatenates: bool = False
    cost: Callable[[Operator], int] | None = None
    axes: Callable[[Step], Value] | None = None
    constants: Callable[[Step], list[Constant]] | None = None
    homogeneous: tuple[int, ...] = ()
    lifts_zero: bool = False
    layer: Callable[..., Any] | None = None
    below: Callable[[Arguments, Mapping[str, Any]], float] = lambda given, named: 1.0
    floor: float = -math.inf
    fills: Callable[[Arguments, Mapping[str, Any]], bool] = lambda given, named: False

    @property
    def keeps_grid(self) -> bool:
        """Return whether its outputs have only values of its inputs, which stay on their grid if they share one."""
        return self.role == MOVE or self.concatenates

    def role_in(self, given: Arguments, named: Mapping[str, Any], activations: int) -> str:
        """Return its role in a call with these arguments, of which so many are activations."""
        arithmetic = self.role == JOIN and self.pair and activations < 2
        # A value that is added while moving may not be on a grid.
        return FLOAT if arithmetic or self.fills(given, named) else self.role


def known(names: str, **facts: Any) -> dict[str, Facts]:
    """Return the same facts for each of these names, which are those of aten without the "_" of in-place versions."""
    return dict.fromkeys(names.split(), Facts(**facts))


def free(operator: Operator) -> int:
    """Return 0: by convention an operator that only moves, picks, adds or normalizes values costs no multiply-adds."""
    return 0


def layer_setting(given: Any) -> Any:
    """Return an operator's argument as layers take it: a tuple, text, or one number for all axes."""
    if isinstance(given, str):
        return given
    return tuple(int(size) for size in given) if isinstance(given, (list, tuple)) else int(given)
