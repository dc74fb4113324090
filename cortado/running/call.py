"""Call: run a network on whatever inputs it takes."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def call_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs as the arguments of a call: a tuple in order, a dict by name; all else is one argument."""
    if isinstance(inputs, Mapping):
        return (), {str(name): part for name, part in inputs.items()}
    return (tuple(inputs) if isinstance(inputs, tuple) else (inputs,)), {}


def call(network: nn.Module, inputs: Any) -> Any:
    """Return the network's outputs; `call_arguments` says how inputs are passed."""
    positional, named = call_arguments(inputs)
    return network(*positional, **named)
