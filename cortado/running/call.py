"""Call: run a network on whatever inputs it takes."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def call(network: nn.Module, inputs: Any) -> Any:
    """Return the network's outputs: a tuple has its arguments in order, a dict by name; all else is one argument."""
    if isinstance(inputs, tuple):
        return network(*inputs)
    return network(**inputs) if isinstance(inputs, Mapping) else network(inputs)
