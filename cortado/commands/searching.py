"""Searching: the command search, which finds the open knobs of a recipe by trials."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cortado.commands.given import (
    GOAL_MISSED,
    device_option,
    in_words,
    old_option,
    progress_here,
    threads_option,
    time_limit_option,
)
from cortado.engine.bundle import write_bundle
from cortado.engine.job import Job, read_job
from cortado.engine.options import RunOptions
from cortado.errors import BadRecipe, Stopped
from cortado.planner.search.ranges import read_ranged, shape_recipe
from cortado.planner.search.trial_search import SAMPLERS, TRIALS, require_optuna, search_within
from cortado.planner.search.trials import MINIMISE
from cortado.report.pages.terminal import report_text


@click.command("search")
@click.argument("job")
@click.option(
    "--recipe", help="With ranges: 'prune/channels keep=0.4..0.8 | quantize/weights bits=3,4,6'; or a YAML file."
)
@click.option("--limit", "limits", multiple=True, help="'size <= 100 KB' or 'score >= -0.5 %'; repeatable.")
@click.option(
    "--trials", type=int, help=f"Total over all processes and runs; {TRIALS} if there is no time limit either."
)
@time_limit_option("'30 min'; no new trial starts after this time.")
@click.option(
    "--minimise",
    default="size",
    show_default=True,
    type=click.Choice(MINIMISE),
    help="What to minimise besides the score.",
)
@click.option(
    "--out", default="runs/search", show_default=True, help="Folder for the trials and the bundle of the best."
)
@click.option(
    "--sampler",
    default="tpe",
    show_default=True,
    type=click.Choice(SAMPLERS),
    help="Who draws the trials: tpe (Optuna), random, or n2n, a policy that removes blocks, then shrinks layers.",
)
@click.option("--resume", is_flag=True, help="Continue the trials in the folder, or join other processes there.")
@click.option("--seed", type=int, help="Random seed of the task.")
@old_option("--time", "--measure-in")
@click.option(
    "--measure-in",
    "runtimes",
    multiple=True,
    help="Export the best network to this runtime, then score and time it; repeatable.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=int,
    default=(1,),
    show_default=True,
    help="Batch size for --measure-in; repeatable.",
)
@threads_option
@device_option
@in_words
def search_command(
    job: str, recipe: str | None, limits: tuple[str, ...], trials: int | None, time_limit: str | None, minimise: str, out: str,
    sampler: str, resume: bool, seed: int | None, runtimes: tuple[str, ...], batches: tuple[int, ...], threads: int,
    device: str,
) -> None:  # fmt: skip
    """Search the open knobs of a recipe for JOB by trials; write the front and a bundle of the best network.

    Options of the network may be open too (options: {width: 0.5..1.0, depth: [1, 2]}): each trial makes and trains such a one.

    Several processes can share a folder (--resume). Exit status 3: a limit was missed.
    """
    made = read_job(job, seed)
    made, chosen = with_recipe(made, recipe, sampler)
    wanted = limits or made.limits
    read_ranged(chosen)
    require_optuna()
    from cortado.planner.search.study import alone

    folder, progress = Path(out), progress_here()
    options = RunOptions.read(
        wanted, folder=folder, resume=resume, progress=progress, forms=made.forms, runtimes=runtimes, batches=batches,
        threads=threads, command="search",
    )  # fmt: skip
    try:
        task = replace(made.make_task(), device=device)
        # One process trains the original network; the others read its result.
        with alone(folder):
            original = made.trusted(task, folder, progress)
        options = options.for_network(original, task)
        found = search_within(original, task, chosen, options, trials, time_limit, minimise, sampler)
        with alone(folder):
            write_bundle(
                folder, found.network, original, found.report, made.text, options.speed.runtimes, task,
                body=found.made.body, exported=found.made.exported,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped("search: interrupted. Finished trials and stages are kept; --resume continues.") from None
    click.echo(found.text() + "\n")
    click.echo(report_text(found.report))
    click.echo(f"\nbundle: {folder}\nreport: {folder / 'report.html'}")
    sys.exit(0 if found.report.met else GOAL_MISSED)


def with_recipe(job: Job, recipe: str | None, sampler: str) -> tuple[Job, Any]:
    """Return a job and the recipe to search: the one given, the job's own, or what its open options ask for."""
    chosen = recipe or job.recipe
    if job.open_options:
        # Trials are compared with a network that has the maker's own values for open options.
        return replace(job, open_options={}), shape_recipe(job, chosen, taught=sampler == "n2n")
    if chosen is None:
        raise BadRecipe(
            "search: no recipe is given. Give one with ranges: --recipe 'quantize/weights bits=3..8 | finetune lr=1e-4..1e-2'."
        )
    return job, chosen
