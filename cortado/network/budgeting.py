"""Budgeting: what a network would cost with fewer units, predicted from its profile and the shapes of its weights."""

from math import prod

from torch import fx

from cortado.groups.groups import Groups, Keeps
from cortado.groups.step import shape_of
from cortado.network.profile import profile
from cortado.network.view import View


class Costs:
    """The multiply-adds or parameters of each layer, and how they shrink with its weights.

    A layer's multiply-adds go with the entries of its largest weight. What runs without a weight (the products of
    attention itself) is taken as it is: the prediction is then a little too high, never a measurement.
    """

    def __init__(self, view: View, of: str) -> None:
        """`of`: "multiply_adds" or "parameters"."""
        self.groups: Groups = view.groups
        rows = {row.path: row for row in profile(view.network, view.example).rows}
        self.parts: list[tuple[float, fx.Node]] = []
        self.fixed = 0.0
        spoken = set()
        for node, names in self.groups.walked.captured.tensors.items():
            shape = shape_of(node)
            layer = names[0].rpartition(".")[0]
            if of == "parameters":
                cost = float(prod(shape))
            elif len(shape) > 1 and layer in rows and layer not in spoken:
                spoken.add(layer)
                cost = float(rows[layer].multiply_adds or 0.0)
            else:
                continue
            self.parts.append((cost, node))
        counted = sum(cost for cost, _ in self.parts)
        total = sum(row.multiply_adds or 0.0 for row in rows.values()) if of == "multiply_adds" else counted
        self.fixed, self.total = total - counted, total

    def after(self, keeps: Keeps) -> float:
        """The predicted cost when only these units stay."""
        kept = self.groups.kept_rows(self.groups.gone(keeps))
        total = self.fixed
        for cost, node in self.parts:
            for axis, size in enumerate(shape_of(node)):
                cost *= len(kept[node, axis]) / size if (node, axis) in kept else 1.0
            total += cost
        return total

    def share(self, keeps: Keeps) -> float:
        """The predicted share of the cost that stays."""
        return self.after(keeps) / self.total if self.total else 1.0
