"""Needs: what a method has to find in a network, and what it leaves there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from cortado.errors import NothingChanged
from cortado.network.finalize import in_training
from cortado.network.graph.where import original_first
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.form import Form
from cortado.parts.forms.same import same_form
from cortado.task.task import Task

Found = TypeVar("Found")


class Leaves(StrEnum):
    """What a method may leave in a network that was not there before."""

    FLOATS = "other floats"
    ZEROS = "zeros"
    CODES = "codes"
    LOW_RANK = "weights of low rank"
    COPIES = "filters made from fewer"
    COMPACT = "compact layers in the places of others"
    NARROWER = "narrower layers"
    FEWER_BLOCKS = "fewer blocks"
    FOLDED = "folded norms"
    GATES = "gates around blocks"
    EXPERTS = "experts"
    HALTING = "blocks that halt"
    ROUNDED = "rounded activations"
    SIGNS = "signs of activations"
    RELEASED = "weights without a form"


@dataclass(frozen=True)
class Need(Generic[Found]):
    """Something that a method has to find in a network before it can change it.

    `what` completes the sentence "it needs ...", `or_else` the sentence "Leave the stage out, or ...".
    `found(method, view, task)` returns what was found, empty or False for nothing; it changes nothing, and may raise
    what refuses a network. `why` adds a sentence on what is in the way.
    """

    what: str
    found: Callable[[Any, View, Task], Found]
    or_else: str = "choose other weights with where"
    why: Callable[[View], str] = lambda view: ""

    def require(self, method: Any, view: View, task: Task) -> Found:
        """Return what was found.  Raises NothingChanged if there is nothing."""
        found = self.found(method, view, task)
        if not found:
            raise NothingChanged(f"{method.name()}: {self.sentence(method, view)}")
        return found

    def sentence(self, method: Any, view: View) -> str:
        """Return what is needed and not there, and the way out."""
        return (
            f"it needs {self.what}, and {type(view.network).__name__} has none under where: {method.where!r}."
            f"{self.why(view)} Leave the stage out, or {self.or_else}."
            f"{original_first(weight.path for weight in view.all_weights)}"
        )


def some_differ(weights: Iterable[Weight], made: Callable[[Weight], Form]) -> bool:
    """Return whether the form that a method makes of some weight differs from its present one.

    Floats without codes always count as different: they are not computed to find out.
    """
    return any(
        form.code_bits() is None and not in_training(form) or not same_form(form, made(weight))
        for weight in weights
        if (form := weight.form).shape.numel()
    )


MATRIX = "a weight of two or more axes"


def matrices(weights: Iterable[Weight]) -> list[Weight]:
    """Return the weights of two or more axes."""
    return [weight for weight in weights if len(weight.shape) > 1]


def has_statistics(network: nn.Module) -> bool:
    """Return whether training moves the statistics of some norm."""
    return any(isinstance(getattr(module, "running_mean", None), Tensor) for module in network.modules())


def learns(method: Any, view: View, task: Task) -> bool:
    """Return whether the training of a method moves anything."""
    training = method.training
    moves = training.statistics == "moving" and has_statistics(view.network)
    return bool(training.epochs and (training.lr or moves))


LEARNS = Need("a parameter or a statistic that its training moves", learns, "raise epochs and lr")
