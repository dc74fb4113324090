"""prune/weights: remove the least important weights, anywhere in a layer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.importance.importance import Importance, score
from cortado.lowering.factors import factored_copy
from cortado.methods.method import Method, knob
from cortado.network.view import Factor, View, Weight
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Task


@dataclass(frozen=True)
class PruneWeights(Method):
    """Set the least important weights to zero and keep them there.  Han, Pool, Tran, Dally, 2015.

    `keep` is the share of all weights kept; weights pruned before stay pruned and count. With `threshold` instead,
    prune weights with an importance below threshold x the standard deviation of their layer (the paper's quality
    factor). A low-rank weight is pruned in its factors. `by` is magnitude, magnitude_l2, activation, taylor, curvature
    (Optimal Brain Damage), random, or your own.
    """

    lossy = True

    keep: float = knob(0.5, low=0.0, high=1.0, help="share of weights kept")
    by: str | Importance | type[Importance] = knob("magnitude", help="importance measure that ranks the weights")
    across: bool = knob(False, help="rank across layers, so that some lose more than others")
    of: str = knob(
        "all", one_of=("all", "survivors"), help="what keep is a share of: all weights, or those still there"
    )
    threshold: float | None = knob(None, low=0.0, help="instead of keep: prune below this many standard deviations")

    def apply(self, view: View, task: Task) -> None:
        weights = [weight for weight in view.pieces(self.where) if weight.shape.numel()]
        alive = [still_there(weight) for weight in weights]
        seen, read = as_run(view, weights)
        scores = score(self.by).of(read, seen, task)
        for weight, mask in zip(weights, self.masks(weights, scores, alive), strict=True):
            if not bool(mask.any()):
                raise BadValue(
                    f"{self.name()}: nothing of {weight.title} would be left. Raise keep, or exclude it with where."
                )
            drop(weight, mask)

    def masks(self, weights: list[Weight], scores: list[Tensor], alive: list[Tensor]) -> list[Tensor]:
        if self.threshold is not None:
            limits = [self.threshold * spread(w.dense()[mask]) for w, mask in zip(weights, alive, strict=True)]
            return [(s >= limit) & a for s, a, limit in zip(scores, alive, limits, strict=True)]
        ranked = [torch.where(a, s.to(a.device), -1.0) for s, a in zip(scores, alive, strict=True)]
        if not self.across:
            return [highest(r, self.count(a)) & a for r, a in zip(ranked, alive, strict=True)]
        together = highest(
            torch.cat([r.flatten() for r in ranked]), self.count(torch.cat([a.flatten() for a in alive]))
        )
        pieces = together.split([r.numel() for r in ranked])
        return [p.view(a.shape) & a for p, a in zip(pieces, alive, strict=True)]

    def count(self, alive: Tensor) -> int:
        """Return how many entries to keep."""
        entries = alive.numel() if self.of == "all" else int(alive.sum())
        return round(self.keep * entries)


def as_run(view: View, pieces: list[Weight]) -> tuple[View, list[Weight]]:
    """Return a read-only view in which each factor is the weight of the layer that runs it, and the pieces in that view."""
    if not any(isinstance(piece, Factor) for piece in pieces):
        return view, pieces
    seen = View(factored_copy(view.network), view.original, view.example, view.progress)
    # Both networks have the same tensors, but a bias may belong to another layer there.
    by_tensor = {id(tensor_of(weight)): weight for weight in seen.all_weights}
    return seen, [by_tensor[id(tensor_of(piece))] for piece in pieces]


def tensor_of(weight: Weight) -> Tensor:
    """Return a tensor that belongs to this weight alone: the parameter, or the first one of its form."""
    own = weight.layer._parameters.get(weight.name)
    if own is not None and not isinstance(weight, Factor):
        return own
    return next(iter((*weight.form.parameters(), *weight.form.buffers())))


def spread(values: Tensor) -> float:
    """Return the standard deviation, or the magnitude of a single value."""
    return float(values.std() if values.numel() > 1 else values.abs().sum())


def still_there(weight: Weight) -> Tensor:
    """Return a mask, true where a weight was not pruned before."""
    form = weight.form
    if isinstance(form, Masked):
        return form.mask.clone()
    return torch.ones(weight.shape, dtype=torch.bool, device=weight.dense().device)


def highest(values: Tensor, count: int) -> Tensor:
    """Return a mask of exactly the `count` highest values; ties go to the first ones."""
    flat = values.flatten().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    if not 0 < count < len(flat):
        return torch.full(values.shape, count > 0, device=values.device)
    least = flat.kthvalue(len(flat) - count + 1).values
    mask = flat > least
    mask[(flat == least).nonzero().squeeze(1)[: count - int(mask.sum())]] = True
    return mask.view(values.shape)


def drop(weight: Weight, mask: Tensor) -> None:
    """Keep only what the mask keeps, in the same form."""
    form = weight.form
    if isinstance(form, Masked):
        survivors = mask[form.mask].nonzero().squeeze(1)
        weight.set_form(Masked(mask, form.kept.narrow(0, survivors)))
    elif isinstance(form, Quantized):
        # The grid contains zero: a pruned weight is one more zero code.
        zero_code = torch.zeros((), dtype=torch.int32) if form.zero is None else form.spread(form.zero)
        codes = torch.where(mask, form.codes.int(), zero_code)
        weight.set_form(Quantized(codes, form.scale, form.zero, form.layout, form.group))
    elif isinstance(form, Codebook):
        weight.set_form(Masked(mask, Codebook(form.codebook, form.codes[mask])))
    else:
        weight.set_form(Masked.of(weight.dense(), mask))
