"""Compressing: the commands compress and plan."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from torch import nn

from cortado.commands.given import (
    GOAL_MISSED,
    deep_compression_option,
    device_option,
    in_words,
    old_option,
    progress_here,
    threads_option,
    time_limit_option,
)
from cortado.engine.bundle import write_bundle
from cortado.engine.compress import compress_within
from cortado.engine.job import read_job
from cortado.engine.options import RunOptions
from cortado.engine.recipe import Recipe
from cortado.engine.recipe import read_recipe as read_recipe
from cortado.errors import BadRecipe, CortadoError, Stopped
from cortado.planner.allocate.allocation_report import activation_report, channel_report, explained
from cortado.planner.allocate.feasibility import Feasibility
from cortado.planner.allocate.size_accuracy_curve import planned
from cortado.planner.planned import plan_within
from cortado.planner.search.goal import reach_within
from cortado.planner.search.shapes import Explorer
from cortado.planner.search.trials import MINIMISE
from cortado.planner.sensitivity.deadline import Deadline, seconds_of
from cortado.progress import Progress
from cortado.quantities import size_text
from cortado.report.pages.kernels import placements_text
from cortado.report.pages.terminal import report_text
from cortado.running.brought import accept, blaming
from cortado.runtimes.placements import placements_of
from cortado.runtimes.runtime import Runtime, runtime_by_name
from cortado.runtimes.stopwatch import Stopwatch
from cortado.task.limits import Limit
from cortado.task.task import Task


@click.command("compress")
@click.argument("job")
@click.option("--recipe", help="A YAML file or one line: 'prune/weights keep=0.3 | finetune epochs=2'.")
@click.option("--limit", "limits", multiple=True, help="'size <= 100 KB' or 'score >= -0.5 %'; repeatable.")
@click.option("--out", default="runs/latest", show_default=True, help="Folder for the bundle and the finished stages.")
@click.option("--resume", is_flag=True, help="Continue after the last finished stage in the folder.")
@click.option("--seed", type=int, help="Random seed of the task.")
@old_option("--time", "--measure-in")
@click.option(
    "--measure-in", "runtimes", multiple=True, help="Export to this runtime, then score and time the file; repeatable."
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
@click.option(
    "--minimise",
    default="size",
    show_default=True,
    type=click.Choice(MINIMISE),
    help="What the planner minimises, without a recipe.",
)
@time_limit_option("'30 min', for the planner: no new trial starts after this time.")
@deep_compression_option
@threads_option
@device_option
@in_words
def compress_command(
    job: str, recipe: str | None, limits: tuple[str, ...], out: str, resume: bool, seed: int | None,
    runtimes: tuple[str, ...], batches: tuple[int, ...], minimise: str, time_limit: str | None, threads: int, device: str,
    deep_compression: bool,
) -> None:  # fmt: skip
    """Compress JOB by a recipe, or let the planner find one for the limits, and write a bundle with a report.

    Exit status 3: a limit was missed.
    """
    made = read_job(job, seed)
    wanted = limits or made.limits
    chosen = how(made.recipe, recipe, wanted, planned=time_limit is not None or minimise != "size")
    progress = progress_here()
    options = RunOptions.read(
        wanted, folder=out, resume=resume, progress=progress, forms=made.forms, runtimes=runtimes, batches=batches,
        threads=threads,
    )  # fmt: skip
    try:
        task = replace(made.make_task(), device=device)
        options = options.for_task(task)
        original = made.trusted(task, Path(out), progress)
        options = options.for_network(original, task)
        if chosen is not None:
            done = compress_within(original, task, chosen, options)
        else:
            found = reach_within(original, task, options, minimise, time_limit or "30 min", made.members)
            done = replace(found.made, report=found.report)
            for sentence in filter(None, (found.advice, *found.notes)):
                click.echo(sentence)
        report = done.report
        folder = write_bundle(
            out, done.network, original, report, made.text, options.speed.runtimes, task,
            body=done.body, exported=done.exported,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped("compress: interrupted. Finished stages and trials are kept; --resume continues.") from None
    click.echo(report_text(report, deep_compression))
    click.echo(f"\nbundle: {folder}\nreport: {folder / 'report.html'}")
    sys.exit(0 if report.met else GOAL_MISSED)


def how(own: Any, given: str | None, wanted: Sequence[str], planned: bool) -> Recipe | None:
    """Return the given recipe, or else the job's; None for the planner, chosen by its options or by limits alone.

    Raises BadRecipe if neither a recipe nor limits are given, or a recipe together with options of the planner.
    """
    if given is not None and planned:
        raise BadRecipe(
            "compress: --time-limit and --minimise are for the planner, but a recipe is given. Drop the recipe or these options."
        )
    chosen = own if given is None and not planned else given
    if chosen is None and not wanted:
        raise BadRecipe(
            "compress: neither a recipe nor a limit is given. Try --limit 'score >= -0.5 %', or "
            "--recipe 'quantize/weights bits=8'."
        )
    return None if chosen is None else read_recipe(chosen)


@click.command("plan")
@click.argument("job")
@click.option("--limit", "limits", multiple=True, help="'size <= 100 KB' or 'score >= -0.5 %'; repeatable.")
@click.option("--seed", type=int, help="Random seed of the task.")
@old_option("--time", "--measure-in")
@click.option(
    "--measure-in",
    "runtime",
    help="Also show the mix's kernels and time cut networks in this runtime; a latency limit names its own.",
)
@click.option("--explain", is_flag=True, help="For each weight: the chosen method, and what the others would cost.")
@time_limit_option("'5 min'; measurements that do not fit are skipped and listed.", default="5 min")
@threads_option
@in_words
def plan_command(
    job: str,
    limits: tuple[str, ...],
    seed: int | None,
    runtime: str | None,
    explain: bool,
    time_limit: str,
    threads: int,
) -> None:
    """Predict, before any training, what each file size costs JOB, whether limits are reachable, and which methods help."""
    deadline, made, progress = Deadline(seconds_of(time_limit, "plan")), read_job(job, seed), progress_here()
    options = RunOptions.read(
        limits or made.limits, progress=progress, runtimes=[runtime] if runtime else [], threads=threads
    )
    task = made.make_task()
    options = options.for_task(task)
    original = made.trusted(task, None, progress)
    with blaming(accept(original, "plan")):
        feasibility = plan_within(original, task, options, deadline.seconds)
    found = feasibility.size_accuracy_curve
    click.echo(feasibility.text())
    if explain:
        click.echo(f"\n{explained(found, feasibility.target())}\n", nl=False)
        for describe in (activation_report, channel_report):
            late = f"{describe.__name__.partition('_')[0].capitalize()}: skipped, out of time. Raise --time-limit."
            click.echo(f"\n{late if deadline.over() else describe(found, original, task)}\n", nl=False)
    if options.speed.runtimes:
        limit = options.limit("latency")
        target = runtime_by_name(limit.runtime) if limit and limit.runtime else options.speed.runtimes[0]
        click.echo(f"\n{mix_kernels_text(feasibility, original, task, target)}\n")
        left = max(0.0, deadline.seconds - deadline.spent)
        click.echo(cut_times_text(original, task, limit, target, options.speed.threads, progress, left))


def mix_kernels_text(feasibility: Feasibility, original: nn.Module, task: Task, runtime: Runtime) -> str:
    """Return with which kernels a runtime computes the mix at the target size, and why not with faster ones."""
    mix = feasibility.size_accuracy_curve.plan(math.ceil(feasibility.target()))
    if mix is None:
        return f"No mix is as small as {size_text(feasibility.target())}, so there are no kernels to show."
    title = f"The mix of {size_text(mix.size_bytes + feasibility.size_accuracy_curve.rest_bytes)}, by kernel:"
    try:
        rows = placements_of(runtime, planned(mix, original, original, task), task.example)
    except CortadoError as error:
        return f"{title} unknown. {error}"
    return f"{title}\n\n{placements_text(runtime.name(), rows)}"


def cut_times_text(
    original: nn.Module, task: Task, limit: Limit | None, runtime: Runtime, threads: int, progress: Progress, seconds: float
) -> str:  # fmt: skip
    """Return the measured speed-up of cuts and of integers in a runtime."""
    explorer = Explorer(original, task, Stopwatch(original, task, runtime, threads))
    found = explorer.explored(seconds=seconds, progress=progress)
    return found.text(runtime.name(), None if limit is None else limit.value)
