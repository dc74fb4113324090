"""Given: what every command line brings - a job or a bundle, threads - and errors as sentences with an exit status."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click
from torch import nn

from cortado.devices import AUTO
from cortado.engine.bundle import FILE, check_bundle
from cortado.engine.job import read_job
from cortado.errors import CortadoError, Stopped
from cortado.file.artifact import load
from cortado.progress import Terminal, quiet
from cortado.task.task import Task

GOAL_MISSED, REFUSED, INTERRUPTED = 3, 1, 130


def in_words(command: Callable[..., None]) -> Callable[..., None]:
    """Our errors become one sentence on standard error and an exit status."""

    @wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
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


threads_option = click.option("--threads", default=1, show_default=True, help="Threads to time with.")
device_option = click.option(
    "--device", default=AUTO, show_default=True, help="Where trainings run: auto (a GPU where there is one), cpu, cuda."
)


def time_limit_option(help: str, default: str | None = None) -> Callable[..., Any]:
    """--time-limit; and --time-limit, as it was called, with a warning."""

    def renamed(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            click.secho(
                "--time-limit is called --time-limit now, and will not be understood any more one day.", err=True
            )
            context.meta["budget"] = value

    def chosen(context: click.Context, _: click.Parameter, value: str | None) -> str | None:
        return context.meta.get("budget", default) if value is None else value

    def both(command: Callable[..., Any]) -> Callable[..., Any]:
        old = click.option("--time-limit", hidden=True, is_eager=True, expose_value=False, callback=renamed)
        shown = f"{help}  [default: {default}]" if default else help
        return old(click.option("--time-limit", callback=chosen, help=shown)(command))

    return both


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
    return chosen.original(task, None, Terminal() if sys.stderr.isatty() else quiet()), task


def path_of(file: str) -> Path:
    """The .cortado file itself, or the one in a bundle."""
    path = Path(file)
    return path / FILE if path.is_dir() else path
