"""Ranking: which entries stay, by their importance."""

import math

import torch
from torch import Tensor

from cortado.network.weight import Weight


def survivors_of(weight: Weight) -> Tensor:
    """Return a mask, true where a weight was not pruned before."""
    support, value = weight.form.support(), weight.dense()
    return torch.ones(weight.shape, dtype=torch.bool, device=value.device) if support is None else support.clone()


def most_important(
    importances: list[Tensor], among: list[Tensor], share: float, across: bool, of_survivors: bool = False
) -> list[Tensor]:
    """Return masks of the most important entries of each tensor: a `share` of all its entries, or of those in `among`.

    With `across` all tensors compete for their common share. Nothing outside the masks `among` stays.
    """
    ranked = [torch.where(mask, s.to(mask.device), -1.0).flatten() for s, mask in zip(importances, among, strict=True)]
    counts = counts_kept(among, share, across, of_survivors)
    if across:
        kept = highest(torch.cat(ranked), sum(counts)).split([len(r) for r in ranked])
    else:
        kept = tuple(highest(r, count) for r, count in zip(ranked, counts, strict=True))
    return [one.view(mask.shape) & mask for one, mask in zip(kept, among, strict=True)]


def counts_kept(among: list[Tensor], share: float, across: bool, of_survivors: bool = False) -> list[int]:
    """Return how many entries of each tensor stay; with `across` how many of all, as one number."""
    counts = [float(mask.sum()) if of_survivors else mask.numel() for mask in among]
    return [round(share * count) for count in ([sum(counts)] if across else counts)]


def some_go(among: list[Tensor], share: float, across: bool, of_survivors: bool = False) -> bool:
    """Return whether `most_important` leaves out an entry of `among`."""
    alive = [int(mask.sum()) for mask in among]
    kept = counts_kept(among, share, across, of_survivors)
    return any(now > count for now, count in zip([sum(alive)] if across else alive, kept, strict=True))


def highest(values: Tensor, count: int) -> Tensor:
    """Return a mask of exactly the `count` highest values; ties go to the first ones."""
    flat = values.flatten().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    if not 0 < count < len(flat):
        return torch.full(values.shape, count > 0, device=values.device)
    least = flat.kthvalue(len(flat) - count + 1).values
    mask = flat > least
    mask[(flat == least).nonzero().squeeze(1)[: count - int(mask.sum())]] = True
    return mask.view(values.shape)
