"""Own parts: forms, quantizers and blocks of a user's, by the names from which they are imported."""

import importlib
from collections.abc import Iterable
from typing import Any

from cortado.errors import BadRecipe
from cortado.parts.part import Part


def names_of(kinds: Iterable[type[Part]]) -> list[str]:
    """Return package.module:Class of each class that is not Cortado's, sorted; those inside functions have none."""
    own = (kind for kind in kinds if kind.__module__.partition(".")[0] != "cortado" and "<" not in kind.__qualname__)
    return sorted({f"{kind.__module__}:{kind.__qualname__}" for kind in own})


def parts_named(names: Any, where: str) -> tuple[type[Part], ...]:
    """Return the classes that package.module:Class name.  Raises BadRecipe."""
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise BadRecipe(f"{where}: forms must be a list of package.module:Class, got {names!r}.")
    return tuple(part_named(name, where) for name in names)


def part_named(name: str, where: str) -> type[Part]:
    """Return the class of a form, quantizer or block.  Raises BadRecipe."""
    module, _, inside = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for step in inside.split("."):
            found = getattr(found, step)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadRecipe(f"{where}: forms: {name!r} cannot be loaded ({error}). Write package.module:Class.") from error
    if not isinstance(found, type) or not issubclass(found, Part):
        raise BadRecipe(f"{where}: forms: {name} is no form, quantizer or block. Name a subclass of one.")
    return found
