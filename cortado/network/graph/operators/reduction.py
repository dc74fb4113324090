"""Reductions, and operators along one axis on which every entry depends on the others."""

from cortado.layers.roles import JOIN
from cortado.network.graph.axes.step import Step, Value, for_each
from cortado.network.graph.operators.facts import free, known

PICKING = ("argmax", "argmin", "median", "mode", "kthvalue", "topk", "sort")
"""Their results are places among the entries."""


def reduction(step: Step) -> Value:
    """Drop the reduced axes; all reductions but sums change when zero entries are removed."""
    x = step.tensor("self") or step.tensor("input")
    assert x is not None
    wanted = step.arg("dim")
    if wanted is None or wanted == []:
        places = set(range(len(x)))
    else:
        places = {d % max(1, len(x)) for d in (wanted if isinstance(wanted, (list, tuple)) else [wanted])}
    gone = [axis for place, axis in enumerate(x.axis_list) if place in places]
    if step.name in PICKING:
        step.freeze(*gone)
    elif step.name != "sum":
        step.inexact(*gone)
    step.absorbs(*gone)
    keep = bool(step.arg("keepdim"))
    return for_each(
        step, [None if p in places else axis for p, axis in enumerate(x.axis_list) if keep or p not in places]
    )


def along_one(step: Step) -> Value:
    """Keep one axis whole, on which every entry depends on the others."""
    x = step.tensor("self") or step.tensor("input")
    assert x is not None
    dim = int(step.arg("dim", -1)) % max(1, len(x))
    step.freeze(x.axis_list[dim])
    return for_each(step, [None if place == dim else axis for place, axis in enumerate(x.axis_list)])


OPERATORS = (
    known("mean", role=JOIN, axes=reduction, cost=free, homogeneous=(0,))
    | known("sum var std var_mean std_mean max min any all argmax argmin median", axes=reduction, cost=free)
    | known("amax amin norm linalg_vector_norm prod", axes=reduction)
    | known("logsumexp", axes=reduction, lifts_zero=True)
    | known("softmax log_softmax cumprod", axes=along_one, lifts_zero=True)
    | known("_softmax _log_softmax cumsum sort topk", axes=along_one, lifts_zero=True, cost=free)
    | known(
        "_safe_softmax nanmedian mode kthvalue argsort cummax cummin bincount histc unique_dim _unique2 searchsorted "
        "bucketize isin equal nonzero",
        cost=free,
    )
)
