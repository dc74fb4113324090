"""Lookup: find an importance measure or penalty by the name of its file, or a user's own by module and class."""

import importlib
import pkgutil
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from cortado.errors import BadRecipe


def lookup(room: ModuleType, kind: type, name: str) -> Any:
    """Return an instance of `kind` by name: "nuclear_norm" is NuclearNorm of nuclear_norm.py in `room`, "my_pkg.mine:Mine" yours.

    Raises BadRecipe for an unknown name, suggesting close ones, and for a class that is not a subclass of `kind`.
    """
    word, rooms = kind.__name__.lower(), room.__name__.rpartition(".")[2]
    module_name, _, class_name = name.partition(":")
    if not class_name:
        known = [info.name for info in pkgutil.iter_modules(room.__path__) if info.name != word]
        if name not in known:
            near = get_close_matches(name, known) or known
            raise BadRecipe(
                f"{rooms}: there is no {word} {name!r}. Did you mean: {', '.join(near)}? Your own is package.module:Class."
            )
        module_name = f"{room.__name__}.{name}"
        class_name = "".join(part.capitalize() for part in name.split("_"))
    try:
        made = getattr(importlib.import_module(module_name), class_name)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise BadRecipe(f"{rooms}: {name!r} cannot be loaded ({error}). Write package.module:Class.") from error
    if not isinstance(made, kind):
        raise BadRecipe(f"{rooms}: {name!r} is not a {kind.__name__}. Subclass {room.__name__}.{word}.{kind.__name__}.")
    return made
