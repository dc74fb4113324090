"""Trees: every tensor in the inputs or outputs of a network, in any container."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

CLOSED = (str, int, float, type, nn.Module, ModuleType, FunctionType, torch.SymInt, torch.SymFloat, torch.SymBool)
"""Types that are not searched."""


def tensors_in(value: Any) -> list[Tensor]:
    """Return every tensor in nested containers, dataclasses and user-defined objects, in order."""
    return [value] if isinstance(value, Tensor) else list(iterate_tensors(value, set()))


def iterate_tensors(value: Any, visited: set[int]) -> Iterator[Tensor]:
    """Yield the tensors in a value; each object, which may refer back, is searched once."""
    if isinstance(value, Tensor):
        yield value
    elif value is None or isinstance(value, CLOSED):
        return
    elif isinstance(value, (tuple, list, set, frozenset, deque)):
        for part in value:
            yield from iterate_tensors(part, visited)
    elif isinstance(value, Mapping):
        yield from iterate_tensors(tuple(value.values()), visited)
    elif id(value) not in visited:
        visited.add(id(value))
        for part in kept_values(value):
            yield from iterate_tensors(part, visited)


def kept_values(value: Any) -> Iterable[Any]:
    """Return an object's attribute values, from its dictionary or slots."""
    slots = [name for kind in type(value).__mro__ for name in kind.__dict__.get("__slots__", ())]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)]
