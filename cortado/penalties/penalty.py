"""Penalty: what training may add to its loss, so that weights can be cut or factored later.  One file a penalty."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from difflib import get_close_matches

from torch import Tensor, nn

import cortado.penalties
from cortado.errors import BadRecipe
from cortado.network.view import View, Weight
from cortado.task import Task

Extra = Callable[[nn.Module], Tensor]
"""The network that is trained -> a scalar with a gradient, 0 or more."""


class Penalty(ABC):
    """Pulls weights towards what can be cut away.  It is multiplied by a strength and added to the loss of every step."""

    @abstractmethod
    def of(self, view: View, weights: list[Weight], task: Task) -> Extra:
        """The penalty of these weights as a function, called at every step of a training of `view.network`.

        Raises BadNetwork when the network has nothing that it could act on.
        """


def penalty(name: str) -> Penalty:
    """The penalty called `name`: class LowRank of penalties/low_rank.py is "low_rank", your own "my_pkg.my_file:Mine".

    Raises BadRecipe for a name that is not known, with near ones.
    """
    module_name, _, class_name = name.partition(":")
    if not class_name:
        known = [info.name for info in pkgutil.iter_modules(cortado.penalties.__path__) if info.name != "penalty"]
        if name not in known:
            near = get_close_matches(name, known) or known
            raise BadRecipe(f"penalties: no penalty is called {name!r}. Did you mean: {', '.join(near)}?")
        module_name = f"cortado.penalties.{name}"
        class_name = "".join(word.capitalize() for word in name.split("_"))
    try:
        made = getattr(importlib.import_module(module_name), class_name)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise BadRecipe(f"penalties: {name!r} cannot be loaded ({error}). Write package.module:Class.") from error
    if not isinstance(made, Penalty):
        raise BadRecipe(f"penalties: {name!r} is not a Penalty. Subclass cortado.penalties.penalty.Penalty.")
    return made
