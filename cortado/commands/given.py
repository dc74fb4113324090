"""Given: options and arguments that commands share, logging, and errors as one sentence with an exit status."""

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
from cortado.engine.job import Job, read_job
from cortado.errors import CortadoError, Stopped
from cortado.file.artifact import load
from cortado.nets.from_onnx.network import load_onnx, onnx_example
from cortado.nets.named import ONNX
from cortado.parts.part import Part
from cortado.progress import Lines, Progress, Terminal
from cortado.progress import quiet as silent
from cortado.renamed import OPTIONS
from cortado.running.devices import AUTO
from cortado.task.task import Task

GOAL_MISSED, REFUSED, INTERRUPTED = 3, 1, 130
QUIET, OLD = "cortado.quiet", "cortado.old options"
"""Keys of click's context: whether --quiet is set, and the warnings about old options."""


class ToStderr(logging.Handler):
    """Writes log lines to the current standard error, above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line on standard error, without the line of code that gave it."""
    click.echo(f"warning: {message}", err=True)


@contextlib.contextmanager
def read_log(level: int) -> Iterator[None]:
    """Show the package's log from `level` up on standard error; hide Python's warnings if only errors are shown."""
    log, handler = logging.getLogger("cortado"), ToStderr()
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            if level >= logging.ERROR:
                warnings.simplefilter("ignore")
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def in_words(command: Callable[..., None]) -> Callable[..., None]:
    """Add --quiet and --verbose to a command, and turn our errors into one sentence on standard error and an exit status."""

    @click.option("--quiet", "-q", is_flag=True, help="Show only the result and errors.")
    @click.option("--verbose", "-v", is_flag=True, help="Show the whole log.")
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
            describe = "Finished work is kept. Free some space or choose another folder with --out, then continue with --resume."
            click.secho(f"{command.__name__.removesuffix('_command')}: {error}. {describe}", err=True, fg="red")
            sys.exit(REFUSED)

    return wrapped


def progress_here() -> Progress:
    """Return progress bars on a terminal, log lines elsewhere, and nothing with --quiet."""
    if click.get_current_context().meta.get(QUIET):
        return silent()
    return Terminal() if sys.stderr.isatty() else Lines()


def old_option(old: str, new: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Accept `old`, with a warning, for the option `new` of a command; place this decorator above that option."""

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        now = next(one for one in command.__click_params__ if new in one.opts)  # type: ignore[attr-defined]

        def moved(context: click.Context, option: click.Parameter, value: Any) -> None:
            if value is not None and value != ():
                sentence = f"{old} is now called {new}. The next version drops the old name."
                context.meta.setdefault(OLD, []).append(sentence)
                # As a default, so that the new option wins if both are given.
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
    "--deep-compression",
    is_flag=True,
    help="Add the bit counts of the Deep Compression paper (P, Q, H) to the table of layers.",
)
threads_option = click.option("--threads", default=1, show_default=True, help="Threads for timing.")
device_option = click.option(
    "--device", default=AUTO, show_default=True, help="Device for training: auto (a GPU if there is one), cpu or cuda."
)


def time_limit_option(help: str, default: str | None = None) -> Callable[..., Any]:
    """Return the option --time-limit, which its old name stands for with a warning."""

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        option = click.option("--time-limit", default=default, show_default=default is not None, help=help)
        return old_option(OPTIONS["--time-limit"], "--time-limit")(option(command))

    return added


def network_of(source: str, trained: bool = True) -> tuple[nn.Module, Task]:
    """Return the network and the task of a bundle, from its file, or of a job.

    The network of a job without weights is trained first, or keeps its initial weights if `trained` is false.
    """
    made = read_job(source)
    task = made.make_task()
    if Path(source).is_dir():
        check_bundle(source)
        return load(Path(source) / FILE, made.architecture, made.forms), task
    chosen = made if trained else replace(made, training={})
    return chosen.original(task, None, progress_here()), task


def network_and_example(source: str) -> tuple[nn.Module, Any]:
    """Return the network, untrained if a job trains it, and an example of its inputs, of a bundle, a job or an .onnx file."""
    if source.endswith(ONNX):
        return load_onnx(source), onnx_example(source)
    network, task = network_of(source, trained=False)
    return network, task.example


def file_path(file: str) -> Path:
    """Return the path of a .cortado file: the file itself, or the one in a bundle."""
    path = Path(file)
    return path / FILE if path.is_dir() else path


def maker_for(file: str, job: Job) -> Callable[[], nn.Module]:
    """Return the maker of the network that a file is written against, as its bundle says, or else its job."""
    return (read_job(file) if Path(file).is_dir() else job).architecture


def forms_beside(file: str) -> tuple[type[Part], ...]:
    """Return the user's own forms and blocks that a bundle names; none for a file alone."""
    return read_job(file).forms if Path(file).is_dir() else ()
