"""Pruned cost: the cost of a network with fewer units, predicted from its profile and the shapes of its weights."""

from collections.abc import Sequence
from math import prod

from torch import fx

from cortado.network.coupling.groups import Groups, Keeps
from cortado.network.graph.axes.step import node_shape
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.forms.form import Form

Part = tuple[float, fx.Node, tuple[int, ...]]
"""A cost, the tensor it belongs to, and the axes along which it shrinks."""


class Costs:
    """The multiply-adds or parameters of each layer, and how they shrink with its weights.

    A layer's multiply-adds are proportional to the entries of its matrices and kernels (several for a low-rank
    weight). Operators without a weight (the products of attention itself) are assumed not to shrink, so the
    prediction is slightly too high. It is never a measurement.
    """

    def __init__(self, view: View, of: str) -> None:
        """`of`: "multiply_adds" or "parameters"."""
        self.groups: Groups = view.groups
        self.parts: list[Part] = []
        layers: dict[str, list[Part]] = {}
        forms = {weight.path: weight.form for weight in view.all_weights}
        for node, names in self.groups.walked.captured.tensors.items():
            attached = next((forms[name] for name in names if name in forms), None)
            rank = len(node_shape(node))
            found = [(size, node, axes) for size, axes in kernels(attached, node_shape(node), range(rank))]
            if of == "parameters":
                self.parts += found
            elif rank > 1:
                layers.setdefault(names[0].rpartition(".")[0], []).extend(found)
        if of == "parameters":
            self.total = sum(size for size, _, _ in self.parts)
        else:
            rows = {row.path: float(row.multiply_adds or 0.0) for row in profile(view.network, view.example).rows}
            for layer, found in layers.items():
                whole = sum(size for size, _, _ in found)
                self.parts += [(rows.get(layer, 0.0) * size / whole, node, axes) for size, node, axes in found]
            self.total = sum(rows.values())
        self.fixed = self.total - sum(cost for cost, _, _ in self.parts)

    def after(self, keeps: Keeps) -> float:
        """Return the predicted cost when only these units stay."""
        kept = self.groups.kept_rows(self.groups.gone(keeps))
        total = self.fixed
        for cost, node, axes in self.parts:
            for axis in axes:
                cost *= len(kept[node, axis]) / node_shape(node)[axis] if (node, axis) in kept else 1.0
            total += cost
        return total

    def share(self, keeps: Keeps) -> float:
        """Return the predicted share of the cost that stays."""
        return self.after(keeps) / self.total if self.total else 1.0


def cost_of(view: View, of: str) -> Costs | None:
    """Return the predicted cost `of` a network; None for "channels", which are counted and not predicted."""
    return None if of == "channels" else Costs(view, of)


def kernels(form: Form | None, shape: Sequence[int], axes: Sequence[int]) -> list[tuple[float, tuple[int, ...]]]:
    """Return, for each matrix or kernel of a weight, its entry count and which of `axes` it has.

    In low rank only the first kernel has the input axes, and only the last has the output axis.
    """
    factors = None if form is None else form.factors()
    if factors is not None:
        first = kernels(factors.first, factors.first.shape, [axis for axis in axes if axis != 0])
        return first + kernels(factors.last, factors.last.shape, [axis for axis in axes if axis != 1])
    return [(float(prod(shape)), tuple(axes))]
