"""Progress: the state of long work, as bars on a terminal or as log lines; silent unless a front end asks for it."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

LOG = logging.getLogger(__name__)
PAUSE = 20.0
"""Seconds between two log lines of one task."""


class Bar(Protocol):
    """The progress of one task."""

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more steps as done."""


class Progress(Protocol):
    """Shows the progress of tasks."""

    def bar(self, title: str, total: int) -> contextlib.AbstractContextManager[Bar]:
        """Return a context manager of a bar of `total` steps."""


class QuietBar:
    """A bar that shows nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""


class Quiet:
    """Progress that shows nothing."""

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        yield QuietBar()


def quiet() -> Progress:
    """Return progress that shows nothing."""
    return Quiet()


def times_text(elapsed: float | None, left: float | None) -> str:
    """Return "left 0:00:40, elapsed 0:02:02" for two times in seconds; "-:--:--" stands for an unknown one."""
    texts = []
    for seconds in (elapsed, left):
        minutes = 0 if seconds is None else int(seconds) // 60
        texts.append("-:--:--" if seconds is None else f"{minutes // 60}:{minutes % 60:02}:{int(seconds) % 60:02}")
    return f"left {texts[1]}, elapsed {texts[0]}"


class Lines:
    """Progress as log lines, for a stream that is not a terminal: one line per task every PAUSE seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        yield LineBar(title, total, self.clock)


class LineBar:
    """A task that logs its progress."""

    def __init__(self, title: str, total: int, clock: Callable[[], float]) -> None:
        self.title, self.total, self.clock, self.done = title, total, clock, 0
        self.start = self.shown_at = clock()

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        now = self.clock()
        if now - self.shown_at < PAUSE:
            return
        self.shown_at, elapsed = now, now - self.start
        known = self.total >= self.done > 0
        left = elapsed / self.done * (self.total - self.done) if known else None
        share = f"{self.done:,} of {self.total:,}" if known else f"{self.done:,}"
        LOG.info("%s: %s, %s", self.title, share, times_text(elapsed, left))


class Terminal:
    """Progress bars on standard error, drawn by rich."""

    def __init__(self) -> None:
        from rich import console, progress, table, text

        class Times(progress.ProgressColumn):
            """Remaining and elapsed time."""

            max_refresh = 0.5

            def render(self, task: progress.Task) -> text.Text:
                return text.Text(times_text(task.elapsed, task.time_remaining))

        columns: list[Any] = [
            progress.TextColumn("{task.description:<28}"), progress.BarColumn(), progress.TaskProgressColumn(),
            Times(table.Column(no_wrap=True)),
        ]  # fmt: skip
        self.shown = progress.Progress(*columns, transient=True, console=console.Console(stderr=True))

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        own = not self.shown.live.is_started
        if own:
            self.shown.start()
        number = self.shown.add_task(title, total=total)
        try:
            yield TerminalBar(self.shown, number)
        finally:
            self.shown.remove_task(number)
            if own:
                self.shown.stop()


class TerminalBar:
    """One progress bar of rich."""

    def __init__(self, shown: Any, number: Any) -> None:
        self.shown, self.number = shown, number

    def advance(self, steps: int = 1) -> None:
        self.shown.advance(self.number, steps)
