"""Hooks that receive a layer's input at each call."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def before_call(layer: nn.Module, hook: Callable[[nn.Module, Any], Tensor | None]) -> RemovableHandle:
    """Call `hook(layer, activation)` before the layer runs; a returned tensor replaces the layer's input.

    The activation is the first argument, positional or keyword. Calls without arguments are skipped.
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
    """Return the first argument of a call that has at least one."""
    return given[0] if given else named[first_name(layer, named)]


def first_name(layer: nn.Module, named: dict[str, Any]) -> str:
    """Return the first keyword in the order of the layer's forward, else of the call."""
    first = next(iter(inspect.signature(layer.forward).parameters), "")
    return first if first in named else next(iter(named))
