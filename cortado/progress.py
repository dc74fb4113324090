"""Progress: bars with a time to go for anything that takes long; silent unless a front end asks for them."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""


class Progress(Protocol):
    """Shows pieces of work; `bar` is used as a context."""

    def bar(self, says: str, total: int) -> contextlib.AbstractContextManager[Bar]:
        """A bar of `total` steps."""


class QuietBar:
    """Counts nothing."""

    def advance(self, steps: int = 1) -> None:
        """Nothing is shown."""


class Quiet:
    """No bars."""

    @contextlib.contextmanager
    def bar(self, says: str, total: int) -> Iterator[Bar]:
        yield QuietBar()


def quiet() -> Progress:
    """Progress that shows nothing."""
    return Quiet()


class Terminal:
    """Bars on the terminal, through rich."""

    def __init__(self) -> None:
        from rich import progress

        columns: list[Any] = [
            progress.TextColumn("{task.description:<28}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("to go"),
            progress.TimeRemainingColumn(),
        ]
        self.shown = progress.Progress(*columns, transient=True)

    @contextlib.contextmanager
    def bar(self, says: str, total: int) -> Iterator[Bar]:
        own = not self.shown.live.is_started
        if own:
            self.shown.start()
        number = self.shown.add_task(says, total=total)
        try:
            yield TerminalBar(self.shown, number)
        finally:
            self.shown.remove_task(number)
            if own:
                self.shown.stop()


class TerminalBar:
    """One bar of rich's."""

    def __init__(self, shown: Any, number: Any) -> None:
        self.shown, self.number = shown, number

    def advance(self, steps: int = 1) -> None:
        self.shown.advance(self.number, steps)
