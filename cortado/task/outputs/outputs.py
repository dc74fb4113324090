"""Outputs: the base class of kinds of outputs: what a network returns, and how the outputs of two networks are compared."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cortado.running.trees import map_tensors, parts_by_name, tensors_in

Rows = Any
"""What is compared of a network's outputs: a float tensor (N, places, numbers), or a tuple of such for several outputs."""


class Outputs(ABC):
    """A kind of outputs.  All divergences are in nats, per sample.

    >>> issubclass(cortado.Classes, cortado.Outputs)
    True

    `rows` takes what a network returned; every other method takes such rows. Gradients pass through all of them but
    `agreement`.
    """

    @abstractmethod
    def rows(self, outputs: Any) -> Rows:
        """Return the float tensors that are compared, each as (N, places, numbers); a place is a pixel, token or box."""

    def fitted(self, rows: Rows) -> "Outputs":
        """Return the kind with what it has to know of the original network's outputs, from its rows on some data."""
        return self

    @abstractmethod
    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        """Return (N,): how far each sample's outputs are from those wanted, in nats, averaged over places.

        `temperature` divides logits, where the kind has a softmax.
        """

    def distilled(self, wanted: Rows, found: Rows, temperature: float) -> Tensor:
        """Return (N,): what a network learns from a teacher's outputs: the divergence, times T^2 where logits are softened.

        The factor keeps the size of gradients: a softmax at T divides them by T^2.  Hinton, Vinyals, Dean, 2015.
        """
        return self.divergence(wanted, found, temperature) * (temperature**2 if self.softens else 1.0)

    @abstractmethod
    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        """Return a scalar, the sum of v . rows over samples, for random v with the mean of v v^T the Hessian of `divergence`.

        So the squared gradient of one sample's slope is, in expectation, that of the divergence.
        """

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        """Return (N,): the share of places at which both networks decide alike; None for outputs without decisions."""
        return None

    def __str__(self) -> str:
        return type(self).__name__

    @property
    def softens(self) -> bool:
        """Return whether `temperature` matters: whether any of the outputs has a softmax."""
        return False


def float_parts(outputs: Any) -> dict[str, Tensor]:
    """Return the float tensors of a tree of outputs by their paths, in order; without any, the first tensor as floats.

    Tensors inside other objects, such as a cache, are no outputs, unless the network returns nothing else.
    """
    parts = {name: part for name, part in parts_by_name(outputs).items() if isinstance(part, Tensor)}
    parts = parts or {str(number): part for number, part in enumerate(tensors_in(outputs))}
    usable = {name: part for name, part in parts.items() if part.layout == torch.strided and part.numel()}
    floats = {name: part for name, part in usable.items() if part.is_floating_point()}
    return floats or dict(list(usable.items())[:1])


def first_floats_of(outputs: Any) -> Tensor:
    """Return the first float tensor of a tree of outputs; an empty one without any."""
    return next(iter(float_parts(outputs).values()), torch.zeros(0))


def as_rows(tensor: Tensor, axis: int | None = None) -> Tensor:
    """Return a tensor (N, ...) as float rows (N, places, numbers); `axis` holds the numbers.

    By default the numbers are the last axis, for maps (N, numbers, H, W ...) the second; without one, (N,), they are one.
    """
    found = tensor.float()
    if found.dim() < 2:
        return found.reshape(-1, 1, 1)
    axis = (1 if found.dim() > 3 else -1) if axis is None else axis
    found = found.movedim(axis, -1)
    return found.reshape(found.shape[0], -1, found.shape[-1])


def in_float64(rows: Rows) -> Rows:
    """Return rows in float64."""
    return map_tensors(lambda part: part.double(), rows)


def all_places(rows: Sequence[Rows]) -> Rows:
    """Return the rows of several batches as the places of one sample, whatever the number of places in each batch."""
    first = rows[0]
    if isinstance(first, Tensor):
        return torch.cat([part.flatten(0, 1) for part in rows])[None]
    return tuple(all_places(list(column)) for column in zip(*rows, strict=True))


def some_places(rows: Rows, most: int) -> Rows:
    """Return evenly spaced samples or places of rows, with about `most` numbers in each tensor."""

    def some(part: Tensor) -> Tensor:
        step = -(-part.numel() // most)
        return part if step <= 1 else part.flatten(0, 1)[::step][None]

    found = map_tensors(some, rows)
    alike = len({part.shape[0] for part in tensors_in(found)}) <= 1
    return found if alike else map_tensors(lambda part: part.flatten(0, 1)[None], found)


def same_shapes(wanted: Rows, found: Rows) -> bool:
    """Return whether two rows can be compared, and hold anything."""
    shapes = [[part.shape for part in tensors_in(rows)] for rows in (wanted, found)]
    return shapes[0] == shapes[1] and any(part.numel() for part in tensors_in(wanted))


def signs_like(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs, one for each entry of the rows."""
    return torch.randint(0, 2, rows.shape, generator=generator).to(rows) * 2 - 1
