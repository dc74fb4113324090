"""Factorize: choose a rank for each layer, and give the layer the form that a fit makes of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cortado.errors import BadValue, NothingChanged
from cortado.methods.factorize.ranks import Cut, energy_ranks, equal_ranks, fixed_ranks, least_of_each, least_share
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.network.view import View
from cortado.parts.forms.low_rank import LowRank

Chosen = list[tuple[Cut, int]]
"""The layers to factor, in execution order, each with its rank."""

Fit = Callable[[Chosen], Iterator[LowRank]]
"""Yields the form of each layer in turn.  A form is attached before the next is asked for, so later fits see it."""


@dataclass(frozen=True)
class Factorize(Method):
    """Replace linear layers and ungrouped convolutions by chains of smaller kernels.

    Layers whose factors would cost as much as they do are unchanged. Raises BadValue for a share that the smallest
    ranks do not reach, NothingChanged if no layer has cheaper factors.
    """

    lossy = True
    leaves = (Leaves.LOW_RANK,)

    keep: float = knob(0.5, low=0.0, high=1.0, help="share of the multiply-adds kept")
    rank: int | None = knob(None, low=1, help="the same rank for every layer, instead of keep")
    ranks: str = knob(
        "energy", one_of=("equal", "energy"), help="apply keep to each layer, or to all of them by energy"
    )


def factorize(method: Factorize, view: View, cuts: Sequence[Cut], ranks: list[int], fit: Fit) -> None:
    """Set the form of each of `cuts` whose rank is not 0.  Raises NothingChanged if there is none."""
    chosen = [(cut, rank) for cut, rank in zip(cuts, ranks, strict=True) if rank]
    if not chosen:
        raise NothingChanged(
            f"{method.name()}: no layer of where={method.where!r} has factors that cost less at keep={method.keep:g}. "
            "Choose another share or rank, or other layers."
        )
    with view.progress.bar(method.name(), len(chosen)) as bar:
        for (cut, _), form in zip(chosen, fit(chosen), strict=True):
            cut.target.weight.set_form(form)
            bar.advance()


def chosen_ranks(method: Factorize, cuts: Sequence[Cut]) -> list[int]:
    """Return a rank for each layer, 0 for layers to leave unchanged.  Raises BadValue for an unreachable share."""
    if method.rank is not None:
        return fixed_ranks(cuts, method.rank)
    least, whose = least_share(cuts) if method.ranks == "energy" else least_of_each(cuts)
    if method.keep < least:
        # Rounded up, so that the share in the message is reachable.
        raise BadValue(
            f"{method.name()}: the smallest ranks keep {math.ceil(least * 10_000) / 10_000:g} of the multiply-adds of "
            f"{whose}, more than keep={method.keep:g}. Raise keep, or choose other layers with where."
        )
    return energy_ranks(cuts, method.keep) if method.ranks == "energy" else equal_ranks(cuts, method.keep)
