"""Table: the facts of every known operator, by its short name."""

from cortado.network.graph.operators import (
    attention,
    convolution,
    creation,
    elementwise,
    lookup,
    matmul,
    movement,
    normalization,
    pooling,
    recurrent,
    reduction,
)
from cortado.network.graph.operators.facts import Facts
from cortado.network.graph.record import Operator

FAMILIES = (
    convolution, matmul, attention, recurrent, normalization, elementwise, reduction, pooling, movement, lookup, creation,
)  # fmt: skip
FACTS: dict[str, Facts] = {name: facts for family in FAMILIES for name, facts in family.OPERATORS.items()}
UNKNOWN = Facts()


def operator_facts(name: str) -> Facts:
    """Return the facts of an operator by its short name: "conv2d", "add"; the default for one that is not known."""
    return FACTS.get(name.removesuffix("_"), UNKNOWN)


def multiply_adds(operator: Operator) -> int | None:
    """Return an operator's multiply-adds from the shapes it ran on; None when they are unknown.

    By convention elementwise operators, norms, pooling, sums, look-ups and data movement cost 0; zero padding of a
    convolution counts like any other input.
    """
    cost = operator_facts(operator.short_name).cost
    if cost is not None:
        return cost(operator)
    return 0 if operator.pointwise or operator.view or operator.reduction else None
