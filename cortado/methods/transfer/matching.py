"""Matching: the base filters whose copies come closest to given filters, and which filter is which copy."""

import torch
from torch import Tensor

from cortado.parts.forms.dense import Dense
from cortado.parts.forms.transferred import Transferred

RESTARTS, ROUNDS = 8, 12
SWAPS = 4096


def best_copies(
    values: Tensor, transform: int, slots: int, generator: torch.Generator, free_signs: bool
) -> tuple[Tensor, Tensor]:
    """Return for each filter the copy of a base filter that comes closest to it, as codes, and the sign of the filter.

    `values`: the filters (outputs, inputs, ...). Filters are assigned to copies and base filters fitted by least squares, in
    turns, from several random choices of filters as base filters. With `free_signs` a filter may also be minus a copy.
    """
    values = values.float()
    rows = -(-len(values) // slots)
    best, found = -1.0, None
    for _ in range(RESTARTS):
        base = first_guess(values[torch.randperm(len(values), generator=generator)[:rows]], transform, slots)
        held, codes, signs = alternated(values, base, transform, slots, free_signs)
        if held > best:
            best, found = held, (codes, signs)
    assert found is not None
    return found


def alternated(
    values: Tensor, base: Tensor, transform: int, slots: int, free_signs: bool
) -> tuple[float, Tensor, Tensor]:
    """Return how much of the filters their copies hold (a sum of squares), the codes and the signs."""
    held, codes, signs = -1.0, torch.arange(len(values)), torch.ones(len(values))
    for _ in range(ROUNDS):
        likeness = values.flatten(1) @ copies_of(base, transform, slots, values).flatten(1).T
        new = best_assignment(likeness.abs() if free_signs else likeness)
        taken = likeness.gather(1, new[:, None])[:, 0]
        own = torch.where(taken < 0, -1.0, 1.0) if free_signs else torch.ones(len(values))
        base = fitted_base(signed(values, own), transform, slots, new, len(base))
        all_copies = copies_of(base, transform, slots, values)
        now = float(values.square().sum() - (signed(values, own) - all_copies[new]).square().sum())
        if now <= held * (1 + 1e-6):
            break
        held, codes, signs = now, new, own
    return held, codes, signs


def copies_of(base: Tensor, transform: int, slots: int, values: Tensor) -> Tensor:
    """Return all copies of base filters, (rows * slots, inputs, ...)."""
    codes, inputs = torch.arange(len(base) * slots), torch.arange(values.shape[1])
    return Transferred(Dense(base), transform, slots, codes, inputs, tuple(values.shape[2:])).dense().detach()


def first_guess(filters: Tensor, transform: int, slots: int) -> Tensor:
    """Return base filters of which the given ones are the first copies; entries that those leave open are zero."""
    return fitted_base(filters, transform, slots, torch.arange(len(filters)) * slots, len(filters))


def fitted_base(values: Tensor, transform: int, slots: int, codes: Tensor, rows: int) -> Tensor:
    """Return the base filters whose copies are closest to the filters, by least squares: means over the copies."""
    kernel, inputs = tuple(values.shape[2:]), torch.arange(values.shape[1])
    shape = Transferred.inner_shapes(
        values.shape, {"transform": transform, "slots": slots, "rows": rows, "channels": values.shape[1]}
    )["base"]
    form = Transferred(Dense(torch.zeros(shape)), transform, slots, codes, inputs, kernel)
    return form.fit(values)


def signed(values: Tensor, signs: Tensor) -> Tensor:
    """Return each filter times its sign."""
    return values * signs.view(-1, *[1] * (values.dim() - 1))


def best_assignment(likeness: Tensor) -> Tensor:
    """Return a different copy for each filter: the likest first, then swaps of two as long as they gain.

    `likeness`: (filters, copies), with at least as many copies as filters.
    """
    count, places = likeness.shape
    found = torch.full((count,), -1, dtype=torch.int64)
    left = likeness.clone()
    for _ in range(count):
        at = int(left.argmax())
        filter_, place = divmod(at, places)
        found[filter_] = place
        left[filter_], left[:, place] = -torch.inf, -torch.inf
    for _ in range(SWAPS):
        own = likeness.gather(1, found[:, None])[:, 0]
        crossed = likeness[:, found]
        gain = crossed + crossed.T - own[:, None] - own
        at = int(gain.argmax())
        one, other = divmod(at, count)
        if float(gain[one, other]) <= 1e-6:
            break
        found[one], found[other] = found[other].clone(), found[one].clone()
    return found
