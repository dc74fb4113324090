"""Hooks: what a layer reads, handed over at each call."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def before_call(layer: nn.Module, hook: Callable[[nn.Module, Any], Tensor | None]) -> RemovableHandle:
    """Call `hook(layer, activation)` before the layer runs; what it gives, if anything, the layer reads instead.

    The activation is the first argument, given by place or by name. A layer that is called without any is passed over.
    """

    def called(
        layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not given and not named:
            return None
        changed = hook(layer, first_argument(layer, given, named))
        if changed is None:
            return None
        return ((changed, *given[1:]), named) if given else (given, {**named, first_name(layer, named): changed})

    return layer.register_forward_pre_hook(called, with_kwargs=True)


def first_argument(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The first of the arguments of a call, which has some."""
    return given[0] if given else named[first_name(layer, named)]


def first_name(layer: nn.Module, named: dict[str, Any]) -> str:
    """The name that comes first where the layer defines its forward, else in the call."""
    first = next(iter(inspect.signature(layer.forward).parameters), "")
    return first if first in named else next(iter(named))
