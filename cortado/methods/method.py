"""Method: one way to change a network, as a frozen dataclass whose fields are its knobs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from torch import nn

from cortado.errors import BadRecipe
from cortado.knobs.knob import accepts, check_knobs, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.view import View
from cortado.task.task import Task

__all__ = ["Method", "accepts", "knob"]


@dataclass(frozen=True)
class Method(ABC):
    """Changes a network through the editing operations of `View` only.

    >>> PruneWeights(keep=0.5).name()
    'prune/weights'

    A subclass is a frozen dataclass in its own file: `methods/prune/weights.py` defines `PruneWeights`, called
    `prune/weights` in recipes. `lossy`: match moments afterwards. `trains`: floats change by training. `matches`: it
    matches moments itself, and may find nothing to change. `restarts`: it puts another network in the place of the one so
    far (`view.become`), the same one each time. `ends`: no stage may follow it. `needs`: what must be found in the network
    before the method is applied; `leaves`: what it may leave there. Raises BadValue for a knob outside its range.
    """

    called: ClassVar[str] = ""
    """The name in recipes, where it is not the path of the file (see cortado.engine.recipe.ELSEWHERE)."""
    lossy: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    matches: ClassVar[bool] = False
    restarts: ClassVar[bool] = False
    ends: ClassVar[bool] = False
    needs: ClassVar[tuple[Need[Any], ...]] = ()
    leaves: ClassVar[tuple[Leaves, ...]] = ()

    where: str = knob(
        "*", help="which weights: glob patterns of layers; 'not ...' excludes, '*.bias' names parameters", kw_only=True
    )

    @abstractmethod
    def apply(self, view: View, task: Task) -> None:
        """Change the network of `view`."""

    def unmet(self, view: View, task: Task) -> str:
        """Return the sentence of the first need that is not met, "" if all are; raise what refuses the network."""
        return next((need.sentence(self, view) for need in self.needs if not need.found(self, view, task)), "")

    def architecture(self, before: nn.Module) -> nn.Module:
        """Return a network that files after a stage which `restarts` are loaded into, from one for the network before it."""
        return before

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
        check_knobs(self, self.name())


def check_last_stage(stages: Sequence[Method]) -> None:
    """Raise BadRecipe where a stage follows one after which none may."""
    for stage, following in pairwise(stages):
        if stage.ends:
            raise BadRecipe(
                f"recipe: {following.name()} follows {stage.name()}, whose result holds only for the network as it finds it. "
                f"Put {stage.name()} last."
            )
