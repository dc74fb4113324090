"""Values: the numbers of the values that tensors hold during one run."""

from typing import Any

import torch
from torch import Tensor

from cortado.running.trees import tensors_in


class Values:
    """Numbers the values of tensors: a tensor, until something writes to it or to a view of it."""

    def __init__(self) -> None:
        self.known: dict[int, Known] = {}
        """What is known of each tensor, by its address."""
        self.writers: dict[int, list[int]] = {}
        """Memory to the values made by the operator that wrote to it last."""
        self.constants: set[int] = set()
        self.count = 0

    def number(self, tensor: Tensor) -> int:
        """Return the number of a tensor's present value."""
        known, now = self.known.get(tensor._cdata), version_of(tensor)
        if known is not None and now in known.versions:
            known.versions = known.versions if now == known.versions[0] else (now,)
            return known.number
        made = self.renew(tensor)
        if known is not None:
            # Written to through a view.
            self.writers.get(memory_of(tensor), []).append(made)
        return made

    def renew(self, tensor: Tensor, later: int | None = None) -> int:
        """Give a tensor a new value; `later` is the version that it has once the operator is over."""
        self.known[tensor._cdata] = Known(tensor, self.count, later)
        self.count += 1
        return self.count - 1

    def alias(self, tensor: Tensor, other: Tensor) -> None:
        """Give a tensor the value of another."""
        self.known[tensor._cdata] = Known(tensor, self.number(other))


class Known:
    """The number of a tensor's value, and the versions that the tensor may have with it: now, and after the operator.

    A weak reference keeps the tensor's address from being used again, but not its memory.
    """

    def __init__(self, tensor: Tensor, number: int, later: int | None = None) -> None:
        self.number = number
        self.versions = (version_of(tensor),) if later is None else (version_of(tensor), later)
        self.address = torch._C._WeakTensorRef(tensor)  # type: ignore[attr-defined]


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to; 0 where torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


def later_version(func: Any, made: Tensor, given: list[Tensor], written: set[int]) -> int | None:
    """Return the version that an operator's output has once torch has finished the operator, where it changes then.

    Torch counts a write only then, and gives a view the count of the tensor that it shows.
    """
    if id(made) in written:
        return version_of(made) + 1
    return version_of(given[0]) if func.is_view and given else None


def memory_of(tensor: Tensor) -> int:
    """Return the id of a tensor's memory; 0 where it has none of its own."""
    strided = tensor.layout == torch.strided and not tensor.is_nested
    return int(tensor.untyped_storage()._cdata) if strided else 0


def written_by(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> list[Tensor]:
    """Return the tensors to which an operator writes."""
    if not func._schema.is_mutable:
        return []
    schema = func._schema.arguments
    given = [*zip(schema, args, strict=False), *((one, named[one.name]) for one in schema if one.name in named)]
    return [
        tensor for one, value in given if one.alias_info and one.alias_info.is_write for tensor in tensors_in(value)
    ]
