"""Elementwise: arithmetic, comparisons, activation functions and casts."""

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.nets.from_onnx.node import Made, Node, Rule, Value

DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip
"""Types by their number in ONNX."""


def pointwise_rule(function: Callable[..., Any]) -> Rule:
    """Return the rule of a function of all inputs, in which a constant of one entry is a number."""

    def rule(node: Node) -> Made:
        given = [node.value(place) for place in range(len(node.inputs))]
        ranks = [len(one.shapes()[0]) for one in given if not one.static]
        return node.applied(function, [as_number(one, max(ranks, default=-1)) for one in given])

    return rule


def as_number(value: Value, rank: int) -> Value | float:
    """Return a fixed value of one entry as a number, if the other inputs have at least as many axes."""
    single = value.static and value.fixed and value.held[0].numel() == 1 and value.held[0].dim() <= rank
    return value.held[0].item() if single else value


def of_one(function: Callable[..., Any]) -> Rule:
    """Return the rule of a function of one input without settings."""
    return lambda node: node.applied(function, [node.value(0)])


def layer(make: Callable[[Node], nn.Module]) -> Rule:
    """Return the rule of an operator that is one of torch's layers on one input."""
    return lambda node: Made((make(node),), (node.value(0),))


def divide(one: Any, other: Any) -> Any:
    """Divide; whole numbers towards zero."""
    whole = not any(torch.is_tensor(part) and part.is_floating_point() for part in (one, other))
    whole = whole and not any(isinstance(part, float) for part in (one, other))
    return torch.div(one, other, rounding_mode="trunc") if whole else one / other


def modulo(node: Node) -> Made:
    function = torch.fmod if node.attribute("fmod", 0) else torch.remainder
    return node.applied(function, [node.value(0), node.value(1)])


def of_all(function: Callable[..., Any]) -> Rule:
    """Return the rule of a function of any number of inputs."""
    return lambda node: node.applied(function, [node.value(place) for place in range(len(node.inputs))])


def largest_of(*given: Tensor) -> Tensor:
    return reduce(torch.maximum, given)


def smallest_of(*given: Tensor) -> Tensor:
    return reduce(torch.minimum, given)


def sum_values(*given: Tensor) -> Tensor:
    return reduce(operator.add, given)


def mean_of(*given: Tensor) -> Tensor:
    return sum_values(*given) / len(given)


def clip(node: Node) -> Made:
    """Return a ReLU, a ReLU6, or a clip between numbers."""
    low, high = clip_end(node, "min", 1, -math.inf), clip_end(node, "max", 2, math.inf)
    if low == 0 and high == math.inf:
        return Made((nn.ReLU(),), (node.value(0),))
    if not node.value(0).held[0].is_floating_point() or math.inf in (abs(low), abs(high)):
        ends = {name: end for name, end in (("min", low), ("max", high)) if abs(end) != math.inf}
        return node.applied(torch.clamp, [node.value(0)], **ends)
    made = nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)
    return Made((made,), (node.value(0),))


def clip_end(node: Node, name: str, place: int, default: float) -> float:
    """Return an end of a clip, an attribute in opsets before 11."""
    if name in node.given.attributes:
        end = float(node.attribute(name))
    else:
        end = float(node.constant(place)) if node.has(place) else default
    return default if abs(end) > 3.4e38 else end


def prelu_rule(node: Node) -> Made:
    """Return a PReLU with one slope a channel, or the same computed from any slopes."""
    slopes = node.value(1)
    axes = [size for size in slopes.shapes()[0] if size != 1]
    if (
        slopes.fixed
        and len(axes) <= 1
        and (not axes or slopes.shapes()[0].index(axes[0]) == slopes.held[0].dim() - node.rank() + 1)
    ):
        made = nn.PReLU(slopes.held[0].numel())
        made.weight = node.parameter(1, lambda values: values.reshape(-1), "slopes")
        return Made((made,), (node.value(0),))

    return node.applied(sloped, [node.value(0), slopes])


def sloped(values: Tensor, slope: Tensor) -> Tensor:
    return torch.where(values < 0, values * slope, values)


def hard_sigmoid_rule(node: Node) -> Made:
    alpha, beta = float(node.attribute("alpha", 0.2)), float(node.attribute("beta", 0.5))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return Made((nn.Hardsigmoid(),), (node.value(0),))

    return node.applied(hard, [node.value(0)], slope=alpha, shift=beta)


def hard(values: Tensor, slope: float, shift: float) -> Tensor:
    return torch.clamp(values * slope + shift, 0.0, 1.0)


def selu(node: Node) -> Made:
    alpha, gamma = float(node.attribute("alpha", 1.6732632)), float(node.attribute("gamma", 1.0507010))

    return node.applied(scaled_elu, [node.value(0)], alpha=alpha, gamma=gamma)


def scaled_elu(values: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * functional.elu(values, alpha)


def soft_max(log: bool) -> Rule:
    """Return the rule of a softmax; before opset 13 it is one over all axes from `axis` on."""

    def rule(node: Node) -> Made:
        axis, function = node.axis(-1 if node.opset >= 13 else 1), torch.log_softmax if log else torch.softmax
        if node.opset >= 13 or axis == node.rank() - 1:
            return node.applied(function, [node.value(0)], dim=axis)

        return node.applied(over_all, [node.value(0)], start=axis, by=function)

    return rule


def over_all(values: Tensor, start: int, by: Callable[[Tensor, int], Tensor]) -> Tensor:
    return by(values.flatten(start), -1).reshape(values.shape)


def cast(node: Node) -> Made:
    to = DTYPES.get(int(node.attribute("to")))
    if to is None:
        raise node.refuse(
            f"casts to the type number {node.attribute('to')}", "Export the network with floats and whole numbers."
        )
    if to == node.value(0).held[0].dtype:
        return Made((nn.Identity(),), (node.value(0),))

    return node.applied(as_type, [node.value(0)], dtype=to)


def as_type(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype)


def cast_like(node: Node) -> Made:
    return node.applied(as_type, [node.value(0)], dtype=node.value(1).held[0].dtype)


def where(condition: Any, one: Any, other: Any) -> Tensor:
    return torch.where(torch.as_tensor(condition), one, other)


def unchanged(node: Node) -> Made:
    return Made((nn.Identity(),), (node.value(0),))


RULES: dict[str, Rule] = {
    "Add": pointwise_rule(operator.add), "Sub": pointwise_rule(operator.sub), "Mul": pointwise_rule(operator.mul),
    "Div": pointwise_rule(divide),
    "Pow": pointwise_rule(operator.pow), "Mod": modulo, "Neg": of_one(torch.neg), "Abs": of_one(torch.abs),
    "Sqrt": of_one(torch.sqrt), "Reciprocal": of_one(torch.reciprocal), "Exp": of_one(torch.exp), "Log": of_one(torch.log),
    "Floor": of_one(torch.floor), "Ceil": of_one(torch.ceil), "Round": of_one(torch.round), "Sign": of_one(torch.sign),
    "Sin": of_one(torch.sin), "Cos": of_one(torch.cos), "Erf": of_one(torch.erf), "Not": of_one(torch.logical_not),
    "IsNaN": of_one(torch.isnan), "IsInf": of_one(torch.isinf),
    "Equal": pointwise_rule(operator.eq), "Less": pointwise_rule(operator.lt), "Greater": pointwise_rule(operator.gt),
    "LessOrEqual": pointwise_rule(operator.le), "GreaterOrEqual": pointwise_rule(operator.ge),
    "And": pointwise_rule(operator.and_), "Or": pointwise_rule(operator.or_), "Xor": pointwise_rule(operator.xor),
    "Max": of_all(largest_of), "Min": of_all(smallest_of), "Sum": of_all(sum_values), "Mean": of_all(mean_of),

    "Where": pointwise_rule(where), "Cast": cast, "CastLike": cast_like, "Clip": clip, "PRelu": prelu_rule,
    "Relu": layer(lambda node: nn.ReLU()), "Sigmoid": layer(lambda node: nn.Sigmoid()), "Tanh": layer(lambda node: nn.Tanh()),
    "LeakyRelu": layer(lambda node: nn.LeakyReLU(float(node.attribute("alpha", 0.01)))),
    "Elu": layer(lambda node: nn.ELU(float(node.attribute("alpha", 1.0)))), "Selu": selu,
    "Celu": layer(lambda node: nn.CELU(float(node.attribute("alpha", 1.0)))),
    "HardSigmoid": hard_sigmoid_rule, "HardSwish": layer(lambda node: nn.Hardswish()), "Silu": layer(lambda node: nn.SiLU()),
    "Gelu": layer(lambda node: nn.GELU(str(node.attribute("approximate", "none")))),
    "Softplus": layer(lambda node: nn.Softplus()), "Softsign": layer(lambda node: nn.Softsign()),
    "Mish": layer(lambda node: nn.Mish()),
    "Softmax": soft_max(False), "LogSoftmax": soft_max(True), "Identity": unchanged, "Dropout": unchanged,
}  # fmt: skip
