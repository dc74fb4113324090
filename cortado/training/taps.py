"""Taps: what the modules at some paths give or get in a forward pass, through hooks that are always removed."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from torch import nn

from cortado.errors import BadValue
from cortado.training.objectives.objective import ARGUMENT

CALL = "#"
"""Separates a path from the number of its call: layer3#2."""


class TapHooks:
    """Hooks on modules of one network.  `collect()` after each forward pass returns what they gave or got by tap, once."""

    def __init__(self, network: nn.Module, taps: Iterable[str], owner: str) -> None:
        """`owner` ("the network") is for messages.  Raises BadValue for a tap that names no module."""
        self.taps, self.owner = {tap: path_and_call(tap) for tap in taps}, owner
        modules = dict(network.named_modules())
        for tap, (source, _) in self.taps.items():
            path, _ = path_and_argument(source)
            if path not in modules or not path:
                near = get_close_matches(path, modules, n=3) or [name for name in modules if name][:5]
                raise BadValue(f"training: {owner} has no module {tap!r} to tap. Near names: {', '.join(near)}.")
        self.given: dict[str, list[Any]] = {source: [] for source, _ in self.taps.values()}
        self.hooks = [
            modules[path_and_argument(source)[0]].register_forward_hook(self.noting(source)) for source in self.given
        ]

    def noting(self, source: str) -> Any:
        """Return a hook that keeps the outputs of the module at a path, or one of its arguments."""
        path, number = path_and_argument(source)

        def note(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
            if number is not None and not 1 <= number <= len(inputs):
                raise BadValue(f"training: {path} of {self.owner} gets {len(inputs)} arguments by place, not {number}.")
            self.given[source].append(outputs if number is None else inputs[number - 1])

        return note

    def collect(self) -> dict[str, Any]:
        """Return the outputs of the last forward pass.  Raises BadValue for a tap that did not run, or several times."""
        found: dict[str, Any] = {}
        for tap, (source, number) in self.taps.items():
            calls = self.given[source]
            if not calls:
                raise BadValue(f"training: the tap {tap!r} of {self.owner} did not run. Tap a module that runs.")
            if number is None and len(calls) > 1:
                raise BadValue(
                    f"training: the tap {tap!r} of {self.owner} ran {len(calls)} times. Write which call: {source}{CALL}2."
                )
            if number is not None and not 1 <= number <= len(calls):
                raise BadValue(f"training: the tap {tap!r} of {self.owner} ran {len(calls)} times, not {number}.")
            found[tap] = calls[(number or 1) - 1]
        self.forget()
        return found

    def forget(self) -> None:
        """Drop what was kept."""
        for calls in self.given.values():
            calls.clear()

    def remove(self) -> None:
        """Take the hooks off."""
        self.forget()
        for hook in self.hooks:
            hook.remove()


def path_and_argument(source: str) -> tuple[str, int | None]:
    """Return the path and the number of the argument that a tap reads; None for outputs.  Raises BadValue as `path_and_call`."""
    path, sign, number = source.partition(ARGUMENT)
    if sign and not number.isdigit():
        raise BadValue(
            f"training: the tap {source!r} must be a path, or a path and the number of an argument such as {path}{ARGUMENT}1."
        )
    return path, int(number) if sign else None


def path_and_call(tap: str) -> tuple[str, int | None]:
    """Return the path and the number of the call of a tap.  Raises BadValue for a number that is none."""
    path, sign, number = tap.partition(CALL)
    if sign and not number.isdigit():
        raise BadValue(
            f"training: the tap {tap!r} must be a path, or a path and the number of a call such as {path}{CALL}2."
        )
    return path, int(number) if sign else None
