"""Elementwise operators: sums and products of activations, activation functions, dropout."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cortado.layers.roles import CLIP, JOIN, MOVE
from cortado.network.graph.axes.step import Step, Value, broadcast, for_each
from cortado.network.graph.operators.facts import Arguments, free, known


def entry_wise(step: Step) -> Value:
    """Join right-aligned axes of equal size."""
    given = [(part.axis_list, part.shape) for part in step.tensors()]
    # In place, the output is the first tensor and no larger.
    out = broadcast(step, given)
    return [None] * (len(step.shape) - len(out)) + out


def summed(step: Step) -> Value:
    """Follow a sum or difference; what is the same for all entries of an axis lifts its zeros."""
    given = step.tensors()
    if len(given) < 2 and step.arg("other"):
        step.lifts(*given[0].axis_list)
    found = entry_wise(step)
    for part in given if len(given) > 1 else ():
        sizes = (1,) * (len(step.shape) - len(part)) + part.shape
        step.lifts(*(axis for axis, size in zip(found, sizes, strict=True) if size == 1))  # type: ignore[arg-type]
    return found


def clipped(step: Step) -> Value:
    """Follow clipping; bounds that leave zero out lift it."""
    low = next((bound for name in ("min_val", "min") if (bound := step.arg(name)) is not None), 0)
    high = next((bound for name in ("max_val", "max") if (bound := step.arg(name)) is not None), 0)
    found = entry_wise(step)
    if low > 0 or high < 0:
        step.lifts(*found)  # type: ignore[misc]
    return found


def prelu(step: Step) -> Value:
    """Follow one slope per channel, or one for all."""
    x, weight = step.tensor("self") or step.tensor("input"), step.tensor("weight")
    assert x is not None and weight is not None
    if weight.shape != (1,) and len(weight):
        step.join(x.axis_list[1 if len(x) > 1 else 0], weight.axis_list[0])
    return x.axis_list


def passing(step: Step) -> Value:
    """Return the input's axes: only values change."""
    return for_each(step, step.tensors()[0].axis_list)


def rectified(given: Arguments, named: Mapping[str, Any]) -> float:
    """Return 0: nothing below zero passes."""
    return 0.0


def clamped(given: Arguments, named: Mapping[str, Any]) -> float:
    """Return 0 where the lower bound is zero or above; by default it is -1 for hardtanh, and clamp has none."""
    low = given[1] if len(given) > 1 else named.get("min_val", named.get("min"))
    return 0.0 if isinstance(low, (int, float)) and low >= 0 else 1.0


def leaky(given: Arguments, named: Mapping[str, Any]) -> float:
    """Return the slope of a leaky ReLU, at most 1."""
    return min(abs(float(given[1])) if len(given) > 1 else 0.01, 1.0)


def learned(given: Arguments, named: Mapping[str, Any]) -> float:
    """Return the largest slope of a PReLU, at most 1."""
    slopes = given[1] if len(given) > 1 else named.get("weight")
    known_slopes = isinstance(slopes, Tensor) and not slopes.is_meta
    return min(float(slopes.detach().abs().max()), 1.0) if known_slopes else 1.0  # type: ignore[union-attr]


OPERATORS = (
    known("add", role=JOIN, pair=True, axes=summed, cost=free)
    | known("sub", axes=summed, cost=free)
    | known("mul", role=JOIN, pair=True, axes=entry_wise, cost=free, homogeneous=(0, 1))
    | known("neg abs tanh gelu silu elu relu6", axes=entry_wise, cost=free)
    | known("relu", role=CLIP, axes=entry_wise, cost=free, homogeneous=(0,), below=rectified)
    | known("clamp clamp_min hardtanh", role=CLIP, axes=clipped, cost=free, below=clamped)
    | known("leaky_relu", axes=entry_wise, cost=free, below=leaky)
    | known("prelu", axes=prelu, below=learned)
    | known("_prelu_kernel", axes=prelu, cost=free, below=learned)
    | known("hardswish", axes=entry_wise, cost=free, floor=-3.0)
    | known("hardsigmoid", cost=free, floor=-3.0)
    | known("softplus log_sigmoid_forward rrelu_with_noise", cost=free)
    | known("dropout", role=MOVE, axes=passing, layer=nn.Dropout)
    | known("feature_dropout", role=MOVE, axes=passing, layer=nn.Dropout2d)
    | known("alpha_dropout", role=MOVE, axes=passing, layer=nn.AlphaDropout)
    | known("feature_alpha_dropout", role=MOVE, layer=nn.FeatureAlphaDropout)
    | known("native_dropout", role=MOVE, axes=passing, cost=free)
)
