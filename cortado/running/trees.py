"""Trees: inputs, targets and outputs of a network: tensors in tuples, lists, dicts, dataclasses and other containers."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    return map_leaves(lambda leaf: fn(leaf) if isinstance(leaf, Tensor) else leaf, value)


def map_leaves(fn: Callable[[Any], Any], value: Any, closed: tuple[type, ...] = ()) -> Any:
    """Return the same tree with `fn` applied to everything that is no container, or a container of a class in `closed`."""
    if isinstance(value, closed):
        return fn(value)
    if isinstance(value, Mapping):
        parts = {name: map_leaves(fn, part, closed) for name, part in value.items()}
        # A mapping that is a dataclass too, such as an output of transformers, is built from keywords.
        return type(value)(**parts) if dataclasses.is_dataclass(value) else type(value)(parts)  # type: ignore[call-arg]
    if isinstance(value, (tuple, list)):
        parts_of = [map_leaves(fn, part, closed) for part in value]
        return type(value)(*parts_of) if is_named_tuple(value) else type(value)(parts_of)
    if is_record(value):
        fields = {
            one.name: map_leaves(fn, getattr(value, one.name), closed) for one in dataclasses.fields(value) if one.init
        }
        return dataclasses.replace(value, **fields)
    return fn(value)


def is_named_tuple(value: Any) -> bool:
    """Return whether a tuple has named parts, as torch's packed sequences do."""
    return any("_fields" in vars(kind) for kind in type(value).__mro__)


def is_record(value: Any) -> bool:
    """Return whether a value is an instance of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def parts_by_name(value: Any) -> dict[str, Any]:
    """Return every part of a tree that is no container by its path, in order: "logits", "0", "heads.1"; "" for the tree itself.

    Objects of other classes, such as a cache of keys and values, are parts and are not searched.
    """
    if isinstance(value, Mapping):
        inner: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (tuple, list)):
        inner = enumerate(value)
    elif is_record(value):
        inner = [(one.name, getattr(value, one.name)) for one in dataclasses.fields(value)]
    else:
        return {"": value}
    return {f"{name}.{path}".rstrip("."): leaf for name, part in inner for path, leaf in parts_by_name(part).items()}


def without_objects(outputs: Any) -> Any:
    """Return outputs with None for every object that is no tensor, container or plain value, such as a cache of keys and
    values; unchanged where no tensor would be left.
    """
    parts = parts_by_name(outputs).values()
    if not any(isinstance(part, Tensor) for part in parts):
        return outputs
    return map_leaves(lambda leaf: leaf if isinstance(leaf, (Tensor, int, float, str, type(None))) else None, outputs)


def to_device(value: Any, device: torch.device | str | None) -> Any:
    """Return a tree whose tensors are on `device`; None leaves them where they are."""
    return value if device is None else map_tensors(lambda tensor: tensor.to(device), value)


def pick(value: Any, index: Tensor | slice) -> Any:
    """Return a tree with only the samples at `index`: along axis 0 of each tensor, and of each list, which has one entry per
    sample."""

    def picked(leaf: Any) -> Any:
        if isinstance(leaf, list):
            return leaf[index] if isinstance(index, slice) else [leaf[number] for number in index.tolist()]
        return leaf[index] if isinstance(leaf, Tensor) and leaf.dim() else leaf

    return map_leaves(picked, value, (list,))


def sample_counts(value: Any) -> list[int]:
    """Return the number of samples in each part of a tree: the length of a tensor along axis 0, or of a list."""
    found: list[int] = []
    map_leaves(lambda leaf: found.append(length(leaf)), value, (list,))
    return [count for count in found if count >= 0]


def length(leaf: Any) -> int:
    """Return the number of samples in a part of a tree; -1 where it has no samples."""
    return len(leaf) if isinstance(leaf, list) or (isinstance(leaf, Tensor) and leaf.dim()) else -1


def sample_count(value: Any) -> int:
    """Return the number of samples in a tree: that of its first part with samples; 0 without any."""
    return next(iter(sample_counts(value)), 0)


def concatenated(parts: Sequence[Any]) -> Any:
    """Return one tree of the samples of several trees of the same structure: tensors are joined along axis 0, lists as lists.

    Parts without samples are those of the first tree.
    """
    first = parts[0]
    if isinstance(first, list):
        return [entry for part in parts for entry in part]
    if isinstance(first, Tensor):
        return torch.cat(list(parts)) if first.dim() else first
    if isinstance(first, Mapping):
        made = {name: concatenated([part[name] for part in parts]) for name in first}
        return type(first)(**made) if dataclasses.is_dataclass(first) else type(first)(made)  # type: ignore[call-arg]
    if isinstance(first, tuple):
        columns = [concatenated(list(column)) for column in zip(*parts, strict=True)]
        return type(first)(*columns) if is_named_tuple(first) else type(first)(columns)
    if is_record(first):
        names = [one.name for one in dataclasses.fields(first) if one.init]
        return dataclasses.replace(first, **{n: concatenated([getattr(part, n) for part in parts]) for n in names})
    return first


def shape_text(value: Any) -> str:
    """Return shape and dtype of a tensor for a message; of anything else its class."""
    return f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
