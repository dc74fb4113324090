"""Keys: two bytes in the file for each class that holds weights or rounds activations, and the classes of our own rooms."""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from types import ModuleType
from typing import TypeVar

from cortado.errors import BadFile
from cortado.file.wire import Cursor
from cortado.parts.part import Part
from cortado.renamed import FORMS

Kind = TypeVar("Kind", bound=Part)
ROOMS = ("cortado.parts.forms.", "cortado.parts.activations.", "cortado.parts.blocks.")


def key_of(kind: type[Part]) -> bytes:
    """The key of a class: from the name of its file in one of our rooms, or from module and class for a user's own."""
    own = kind.__module__.startswith(ROOMS)
    name = kind.__module__.rpartition(".")[2] if own else f"{kind.__module__}:{kind.__name__}"
    return blake2b(FORMS.get(name, name).encode(), digest_size=2).digest()


@lru_cache(maxsize=len(ROOMS))
def own_kinds(room: ModuleType, base: type[Kind]) -> dict[bytes, type[Kind]]:
    """The finished classes of a room that are of the kind `base`, one a file and called as it is, by key."""
    found: dict[bytes, type[Kind]] = {}
    for info in pkgutil.iter_modules(room.__path__):
        module = importlib.import_module(f"{room.__name__}.{info.name}")
        kind = getattr(module, "".join(word.capitalize() for word in info.name.split("_")), None)
        if isinstance(kind, type) and issubclass(kind, base) and finished(kind):
            found[key_of(kind)] = kind
    return found


def kind_at(
    cursor: Cursor, own: dict[bytes, type[Kind]], known: Iterable[type[Kind]], does: str, like: str
) -> type[Kind]:
    """The class whose key is at the cursor, our `own` or a user's `known`.  Raises BadFile; `does` and `like` are its words."""
    key = cursor.take(2)
    kind = (own | {key_of(one): one for one in known}).get(key)
    if kind is None:
        raise BadFile(
            f"file: it {does} that is not known here (key {key.hex()}). "
            f"Pass the class, load(..., forms=[{like}]), name it in the job, forms: [package.module:{like}], or update cortado."
        )
    return kind


def finished(kind: type) -> bool:
    """Whether a class leaves nothing to its subclasses.  Modules are not of the metaclass that Python would ask."""
    return not any(getattr(getattr(kind, name, None), "__isabstractmethod__", False) for name in dir(kind))
