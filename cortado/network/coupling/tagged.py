"""Tagged: integers that carry the module attribute they came from through the arithmetic of forward code."""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from cortado.network.coupling.attribute import Attribute
from cortado.network.graph.trace import calling_line

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv,
}  # fmt: skip


@dataclass(frozen=True)
class Formula:
    """An attribute, a plain number, or an operation on two formulas."""

    source: Attribute | int | tuple[str, "Formula", "Formula"]

    def value(self, values: Callable[[Attribute], int]) -> int:
        """Return its value for these attribute values.  Raises ZeroDivisionError as the code would."""
        if isinstance(self.source, Attribute):
            return values(self.source)
        if isinstance(self.source, int):
            return self.source
        sign, left, right = self.source
        return OPERATIONS[sign](left.value(values), right.value(values))

    def attributes(self) -> tuple[Attribute, ...]:
        """Return the attributes in it, each once."""
        if isinstance(self.source, Attribute):
            return (self.source,)
        if isinstance(self.source, int):
            return ()
        return tuple(dict.fromkeys((*self.source[1].attributes(), *self.source[2].attributes())))


class Tagged(int):
    """An int with a formula.  Arithmetic with integers keeps it; anything else gives plain numbers."""

    formula: Formula

    def __new__(cls, value: int, formula: Formula) -> "Tagged":
        made = super().__new__(cls, value)
        made.formula = formula
        return made

    def __reduce__(self) -> Any:
        return (int, (int(self),))

    def __add__(self, other: Any) -> Any:
        return combined("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return combined("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return combined("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return combined("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return combined("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return combined("*", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return combined("//", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return combined("//", other, self)


def combined(sign: str, left: Any, right: Any) -> Any:
    """Return the result of an operation, tagged where both sides are integers."""
    if type(left) not in (int, Tagged) or type(right) not in (int, Tagged):
        original = [int(side) if isinstance(side, Tagged) else side for side in (left, right)]
        return OPERATIONS[sign](original[0], original[1])
    value = OPERATIONS[sign](int(left), int(right))
    return Tagged(value, Formula((sign, formula_of(left), formula_of(right))))


def formula_of(value: int) -> Formula:
    return value.formula if isinstance(value, Tagged) else Formula(int(value))


def tag_numbers(network: nn.Module) -> None:
    """Replace every integer attribute of a network's modules, lists and tuples included."""
    for path, module in network.named_modules():
        for name, value in list(module.__dict__.items()):
            if type(value) is int:
                module.__dict__[name] = Tagged(value, Formula(Attribute(path, name, None)))
            elif type(value) in (tuple, list) and value and all(type(part) is int for part in value):
                parts = [Tagged(part, Formula(Attribute(path, name, i))) for i, part in enumerate(value)]
                module.__dict__[name] = type(value)(parts)


@dataclass(frozen=True)
class Sighting:
    """A tagged number passed to a torch function, and the user's line that did so ("net.py:12")."""

    number: Tagged
    line: str


Seen = dict[tuple[str, str], list[Sighting]]
"""(module, function) -> the tagged numbers passed to it."""


class Listener(TorchFunctionMode):
    """Records the tagged numbers that reach torch's functions, by the running module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.seen: Seen = {}
        self.running: list[str] = [""]
        for path, module in network.named_modules():
            module.register_forward_pre_hook(self.entering(path))
            module.register_forward_hook(lambda *_: self.running.pop() and None, always_call=True)

    def entering(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, arguments: Any) -> None:
            self.running.append(path)

        return enter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        line = calling_line()
        found = [Sighting(number, line) for number in tagged_in((args, kwargs or {}))]
        if found:
            self.seen.setdefault((self.running[-1], getattr(func, "__name__", "")), []).extend(found)
        return func(*args, **(kwargs or {}))


def tagged_in(value: Any) -> Iterator[Tagged]:
    """Yield every tagged number in nested arguments, slices included."""
    if isinstance(value, Tagged):
        yield value
    elif isinstance(value, slice):
        yield from tagged_in((value.start, value.stop))
    elif isinstance(value, dict):
        yield from tagged_in(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tagged_in(part)
