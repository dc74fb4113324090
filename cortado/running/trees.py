"""Trees: inputs, targets and outputs of a network: tensors in tuples, lists, dicts, dataclasses and other containers."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
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


def map_tensors(fn: Callable[[Tensor], Any], value: Any) -> Any:
    """Return the same tree with `fn` applied to each of its tensors; everything else is returned as is.

    Tuples (named ones too), lists, dicts and dataclasses are rebuilt with their own classes.
    """
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, Mapping):
        parts = {name: map_tensors(fn, part) for name, part in value.items()}
        # A mapping that is a dataclass too, such as an output of transformers, is built from keywords.
        return type(value)(**parts) if dataclasses.is_dataclass(value) else type(value)(parts)  # type: ignore[call-arg]
    if isinstance(value, (tuple, list)):
        parts_of = [map_tensors(fn, part) for part in value]
        return type(value)(*parts_of) if "_fields" in vars(type(value)) else type(value)(parts_of)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: map_tensors(fn, getattr(value, one.name)) for one in dataclasses.fields(value) if one.init}
        return dataclasses.replace(value, **fields)
    return value


def to_device(value: Any, device: torch.device | str | None) -> Any:
    """Return a tree whose tensors are on `device`; None leaves them where they are."""
    return value if device is None else map_tensors(lambda tensor: tensor.to(device), value)


def pick(value: Any, index: Any) -> Any:
    """Return a tree with only the samples at `index` (along axis 0) of each of its tensors."""
    return map_tensors(lambda tensor: tensor[index], value)


def sample_count(value: Any) -> int:
    """Return the number of samples: the length of the first tensor of a tree along axis 0."""
    return len(tensors_in(value)[0])
