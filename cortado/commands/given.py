"""Given: what every command line brings - a job or a bundle, threads, how much is said - and errors as sentences with an
exit status."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click
from torch import nn

from cortado.engine.bundle import FILE, check_bundle
from cortado.engine.job import read_job
from cortado.errors import CortadoError, Stopped
from cortado.file.artifact import load
from cortado.progress import Lines, Progress, Terminal
from cortado.progress import quiet as silent
from cortado.running.devices import AUTO
from cortado.task.task import Task

GOAL_MISSED, REFUSED, INTERRUPTED = 3, 1, 130


QUIET, OLD = "cortado.quiet", "cortado.old options"
"""Where click's context keeps what a command's files ask for."""


class ToStderr(logging.Handler):
    """Writes a line of the log to whatever standard error is now; above it a bar goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@contextlib.contextmanager
def read_log(level: int) -> Iterator[None]:
    """Show the package's log from `level` on, on standard error; of Python's warnings as well when it is below errors."""
    log, handler = logging.getLogger("cortado"), ToStderr()
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        with warnings.catch_warnings():
            if level >= logging.ERROR:
                warnings.simplefilter("ignore")
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def in_words(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --quiet and --verbose, and make our errors one sentence on standard error and an exit status."""

    @click.option("--quiet", "-q", is_flag=True, help="Show the result and errors, nothing else.")
    @click.option("--verbose", "-v", is_flag=True, help="Show every line of the log.")
    @wraps(command)
    def wrapped(*arguments: Any, quiet: bool, verbose: bool, **options: Any) -> None:
        meta = click.get_current_context().meta
        meta[QUIET] = quiet
        lines = logging.WARNING if sys.stderr.isatty() else logging.INFO
        try:
            with read_log(logging.ERROR if quiet else logging.DEBUG if verbose else lines):
                for sentence in meta.get(OLD, ()):
                    logging.getLogger(__name__).warning(sentence)
                command(*arguments, **options)
        except CortadoError as error:
            click.secho(str(error), err=True, fg="red")
            sys.exit(INTERRUPTED if isinstance(error, Stopped) else REFUSED)
        except OSError as error:
            describe = (
                "What was finished is kept. Make room, or choose another folder with --out, and go on with --resume."
            )
            click.secho(f"{command.__name__.removesuffix('_command')}: {error}. {describe}", err=True, fg="red")
            sys.exit(REFUSED)

    return wrapped


def progress_here() -> Progress:
    """Return bars on a terminal, lines of the log elsewhere, and nothing with --quiet."""
    if click.get_current_context().meta.get(QUIET):
        return silent()
    return Terminal() if sys.stderr.isatty() else Lines()


def old_option(old: str, new: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a command understand `old`, with a warning, in the place of its option `new`: write it above that option."""

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        now = next(one for one in command.__click_params__ if new in one.opts)  # type: ignore[attr-defined]

        def moved(context: click.Context, option: click.Parameter, value: Any) -> None:
            if value is not None and value != ():
                sentence = f"{old} is called {new} from now on; the next version does not know the old name."
                context.meta.setdefault(OLD, []).append(sentence)
                # As a default it gives way to the new option, where both are written.
                context.default_map = {**(context.default_map or {}), now.name: value}

        name = f"old_{now.name}"
        hidden = click.option(
            old,
            name,
            type=now.type,
            multiple=now.multiple,
            hidden=True,
            is_eager=True,
            expose_value=False,
            callback=moved,
        )
        return hidden(command)

    return added


deep_compression_option = click.option(
    "--deep-compression", is_flag=True, help="Add the bits of that paper's arithmetic (P, Q, H) to the layers."
)
threads_option = click.option("--threads", default=1, show_default=True, help="Threads to time with.")
device_option = click.option(
    "--device", default=AUTO, show_default=True, help="Where trainings run: auto (a GPU where there is one), cpu, cuda."
)


def time_limit_option(help: str, default: str | None = None) -> Callable[..., Any]:
    """Return --time-limit as an option of a command, --budget in its place with a warning."""

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        option = click.option("--time-limit", default=default, show_default=default is not None, help=help)
        return old_option("--budget", "--time-limit")(option(command))

    return added


def network_of(source: str, trained: bool = True) -> tuple[nn.Module, Task]:
    """The network of a bundle, read from its file, or that of a job, with its weights; and the task.

    The network of a job without weights is trained now, or, where its shapes will do, left as its architecture begins.
    """
    made = read_job(source)
    task = made.make_task()
    if Path(source).is_dir():
        check_bundle(source)
        return load(Path(source) / FILE, made.make), task
    chosen = made if trained else replace(made, training={})
    return chosen.original(task, None, progress_here()), task


def file_path(file: str) -> Path:
    """The .cortado file itself, or the one in a bundle."""
    path = Path(file)
    return path / FILE if path.is_dir() else path
