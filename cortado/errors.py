"""Every error Cortado raises, as a tree.

    CortadoError
    |-- BadValue         an argument, knob or limit outside its range      (also a ValueError)
    |-- BadRecipe        a method or key that does not exist               (also a ValueError)
    |-- BadTask          data, loss or metric that cannot be used          (also a ValueError)
    |-- BadNetwork       a network that cannot be read, run or changed     (also a ValueError)
    |   |-- CannotFollow a cut that the network's own code cannot follow
    |   `-- Diverged     training with a loss that is NaN or infinite
    |-- BadFile          not a Cortado file, truncated, or altered         (also a ValueError)
    |   `-- WrongNetwork a sound file, but made from another network
    |-- NothingChanged   a method that would leave the network unchanged
    |-- OutputsDiffer    a file whose outputs differ from those of its network
    |-- MissingPackage   an optional package is not installed              (also an ImportError)
    |-- Failed           an unexpected error while a stage ran or wrote
    `-- Stopped          interrupted by the user; the last checkpoint is kept

A message says where, what is wrong, what it got, and the way out.
"""

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


class CortadoError(Exception):
    """Base of all errors that Cortado raises; the message says what is wrong and what to do.

    >>> cortado.profile(net, task.example).row("nowhere")
    Traceback (most recent call last):
    cortado.errors.BadValue: profile: there is no row 'nowhere'. There are: 0, 2.
    """


class BadValue(CortadoError, ValueError):
    """An argument, knob or limit is outside its range."""


class BadRecipe(CortadoError, ValueError):
    """A recipe names a method or key that does not exist, or is malformed."""


class BadTask(CortadoError, ValueError):
    """The data, loss or metric of a task cannot be used."""


class BadNetwork(CortadoError, ValueError):
    """A network cannot be read, run or changed as asked."""


class Diverged(BadNetwork):
    """The loss of a training is NaN or infinite."""


class CannotFollow(BadNetwork):
    """The network's own code cannot follow a cut of channels; `groups` are those at fault, frozen from then on."""

    def __init__(self, message: str, groups: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.groups = tuple(groups)


class BadFile(CortadoError, ValueError):
    """A file is not a Cortado file, is truncated, was altered, or exceeds a limit."""


class WrongNetwork(BadFile):
    """The file is sound but was made from another network."""


class NothingChanged(CortadoError):
    """A method left every weight unchanged: check its pattern or amount."""


class OutputsDiffer(CortadoError):
    """The outputs of an exported file differ from PyTorch's by more than the tolerance."""


class MissingPackage(CortadoError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class Failed(CortadoError):
    """An unexpected error, in the user's code or in Cortado; what was finished before is kept."""


class Stopped(CortadoError):
    """The user interrupted a run; what was finished is kept and `--resume` continues from it."""


def describe(error: BaseException) -> str:
    """Return an error on one line with its origin: "KeyError: 'a' (data.py, line 12, in __getitem__)"."""
    text = " ".join(str(error).split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"


REFUSALS = (BadValue, CannotFollow, Diverged, NothingChanged, OutputsDiffer)
"""Errors of a trial for which neither network nor task is to blame: a search records them and continues."""


def comes_from_system(error: BaseException) -> bool:
    """Return whether the system caused an error, such as a full disk or a lost folder."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return cause is not None


@contextlib.contextmanager
def in_own_code(kind: type[CortadoError], where: str, way_out: str) -> Iterator[None]:
    """Turn exceptions of the user's code into `kind`, with the place in the message; Cortado's own errors pass through."""
    try:
        yield
    except CortadoError:
        raise
    except Exception as error:
        raise kind(f"{where} raised {describe(error)}. {way_out}") from error
