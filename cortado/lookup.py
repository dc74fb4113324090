"""Lookup: find an importance measure or an objective by the name of its file, or a user's own by module and class."""

import importlib
import inspect
import pkgutil
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from cortado.errors import BadRecipe


def lookup(room: ModuleType, kind: type, name: str) -> Any:
    """Return an instance of `kind` by name: "magnitude" is Magnitude of magnitude.py in `room`, "my_pkg.mine:Mine" yours.

    Raises BadRecipe as `lookup_class` does, and for a class that cannot be made without arguments.
    """
    found = lookup_class(room, kind, name)
    try:
        return found()
    except (TypeError, ValueError) as error:
        raise BadRecipe(
            f"{room.__name__.rpartition('.')[2]}: {name!r} cannot be made ({error}). Give every argument a default."
        ) from error


def lookup_class(room: ModuleType, kind: type, name: str) -> Any:
    """Return a subclass of `kind` by name: the one that the file of this name in `room` defines, or package.module:Class.

    Raises BadRecipe for an unknown name, suggesting close ones, and for a class that is not a subclass of `kind`.
    """
    word, rooms = kind.__name__.lower(), room.__name__.rpartition(".")[2]
    module_name, _, class_name = name.partition(":")
    try:
        if class_name:
            found = getattr(importlib.import_module(module_name), class_name)
        else:
            known = names_in(room, kind)
            if name not in known:
                near = get_close_matches(name, known) or known
                raise BadRecipe(
                    f"{rooms}: there is no {word} {name!r}. Did you mean: {', '.join(near)}? Your own is package.module:Class."
                )
            found = known[name]
    except (ImportError, AttributeError, ValueError) as error:
        if isinstance(error, BadRecipe):
            raise
        raise BadRecipe(f"{rooms}: {name!r} cannot be loaded ({error}). Write package.module:Class.") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise BadRecipe(f"{rooms}: {name!r} is not a {kind.__name__}. Subclass {kind.__module__}.{kind.__name__}.")
    return found


def names_in(room: ModuleType, kind: type) -> dict[str, type]:
    """Return the classes of a room that are subclasses of `kind`, by the name of the file that defines each."""
    found = {}
    for info in pkgutil.iter_modules(room.__path__):
        module = importlib.import_module(f"{room.__name__}.{info.name}")
        own = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
        if info.name == kind.__name__.lower():
            continue
        made = next((one for one in own if issubclass(one, kind) and not inspect.isabstract(one)), None)
        if made is not None:
            found[info.name] = made
    return found
