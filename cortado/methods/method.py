"""Method: one way to change a network, as a frozen dataclass whose fields are its knobs."""

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from cortado.errors import BadValue
from cortado.network.view import View
from cortado.renamed import KNOB, old_arguments
from cortado.task.task import Task


@old_arguments(KNOB)
def knob(
    default: Any, *, help: str, low: float | None = None, high: float | None = None, one_of: tuple[Any, ...] = ()
) -> Any:
    """Return a dataclass field for a method: default, help text, and allowed values (low..high, or `one_of`).

    >>> keep = cortado.knob(0.5, low=0.0, high=1.0, help="share of weights kept")
    """
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "one_of": one_of})


@dataclass(frozen=True)
class Method(ABC):
    """Changes a network through the editing operations of `View` only.

    >>> PruneWeights(keep=0.5).name()
    'prune/weights'

    A subclass is a frozen dataclass in its own file: `methods/prune/weights.py` defines `PruneWeights`, called
    `prune/weights` in recipes. `lossy`: match moments afterwards. `trains`: floats change by training. `matches`: it
    matches moments itself, and may find nothing to change. Raises BadValue for a knob outside its range.
    """

    called: ClassVar[str] = ""
    """The name in recipes, where it is not the path of the file (see cortado.engine.recipe.ELSEWHERE)."""
    lossy: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    matches: ClassVar[bool] = False

    where: str = knob("*", help="which weights: glob patterns of layers; 'not ...' excludes, '*.bias' names parameters")

    @abstractmethod
    def apply(self, view: View, task: Task) -> None:
        """Change the network of `view`."""

    def for_blocks(self, size: int) -> "Method":
        """Return the method for runtimes whose kernels compute `size` channels at once: itself, but for knobs left open."""
        return self

    @classmethod
    def name(cls) -> str:
        """Return the name in recipes: the path of the file under methods/, or module:Class for a user's own."""
        if "called" in cls.__dict__:
            return cls.called
        head, _, tail = cls.__module__.partition("cortado.methods.")
        return tail.replace(".", "/") if tail and not head else f"{cls.__module__}:{cls.__name__}"

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check_knob(self.name(), field, hints[field.name], getattr(self, field.name), self)


def check_knob(method: str, field: dataclasses.Field[Any], hint: Any, value: Any, owner: Method) -> None:
    """Raise BadValue unless a knob has the right type and range; whole numbers are accepted as floats."""
    if isinstance(value, int) and not isinstance(value, bool) and accepts(hint, 0.5) and not accepts(hint, value):
        value = float(value)
        object.__setattr__(owner, field.name, value)
    if not accepts(hint, value):
        wanted = getattr(hint, "__name__", str(hint))
        raise BadValue(
            f"{method}: {field.name} must be {wanted}, got {value!r}. It means: {field.metadata.get('help', '')}."
        )
    low, high, one_of = (field.metadata.get(key) for key in ("low", "high", "one_of"))
    # A user's own function is accepted in place of a name.
    if one_of and not callable(value) and value not in one_of:
        raise BadValue(f"{method}: {field.name} must be one of {', '.join(map(str, one_of))}, got {value!r}.")
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        # `not (a <= b)` instead of `a > b`, so that NaN is rejected too.
        if (low is not None and not low <= number) or (high is not None and not number <= high):
            span = f"{'' if low is None else format(low, 'g')}..{'' if high is None else format(high, 'g')}"
            raise BadValue(
                f"{method}: {field.name} must lie in {span}, got {number:g}. It means: {field.metadata['help']}."
            )


def accepts(hint: Any, value: Any) -> bool:
    """Return whether a value has the annotated type (plain classes, unions, tuples and mappings are checked)."""
    origin = typing.get_origin(hint)
    if hint is Any or origin is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(accepts(part, value) for part in typing.get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    if origin is not None:
        return callable(value) if origin is typing.get_origin(typing.Callable[..., Any]) else isinstance(value, origin)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, hint)
