"""Comparing: the command compare, which runs several recipes with several seeds and draws scores against size and time."""

from dataclasses import replace
from pathlib import Path

import click

from cortado.commands.given import device_option, in_words, progress_here, threads_option
from cortado.engine.compared_recipes import COSTS, SEEDS, ComparedRecipes, compare_recipes
from cortado.engine.job import read_job
from cortado.errors import BadRecipe
from cortado.file.whole import write_whole


@click.command("compare")
@click.argument("job")
@click.option("--recipe", "recipes", multiple=True, required=True, help="NAME=RECIPE, the baseline first; repeatable.")
@click.option("--seeds", default=",".join(map(str, SEEDS)), show_default=True, help="Seeds of each recipe.")
@click.option("--limit", "limits", multiple=True, help="'size <= 100 KB' or 'score >= -0.5 %'; repeatable.")
@click.option(
    "--measure-in", "runtimes", multiple=True, help="Export to this runtime, then score and time the file; repeatable."
)
@click.option(
    "--out", default="runs/compared", show_default=True, help="Folder for the runs, their reports and the charts."
)
@click.option("--resume", is_flag=True, help="Continue the runs in the folder.")
@threads_option
@device_option
@in_words
def compare_command(
    job: str, recipes: tuple[str, ...], seeds: str, limits: tuple[str, ...], runtimes: tuple[str, ...], out: str, resume: bool,
    threads: int, device: str,
) -> None:  # fmt: skip
    """Run several recipes on JOB, each with several seeds, and compare them with the first.

    A job that trains its network trains one for each seed. Exit status 0, also where limits are missed: the table says so.
    """
    named, numbers = named_recipes(recipes), read_seeds(seeds)
    made, folder, progress = read_job(job), Path(out), progress_here()
    task = replace(made.make_task(), device=device)
    found = compare_recipes(
        lambda seed: read_job(job, seed).trusted(replace(task, seed=seed), folder / "original" / str(seed), progress),
        task, named, seeds=numbers, limits=limits or made.limits, folder=folder, resume=resume, progress=progress,
        runtimes=runtimes, threads=threads,
    )  # fmt: skip
    click.echo(f"{found.text()}\n")
    for path in write_reports(found, folder, numbers):
        click.echo(path)


def named_recipes(given: tuple[str, ...]) -> dict[str, str]:
    """Return recipes by name.  Raises BadRecipe for one without a name, or with that of another."""
    named: dict[str, str] = {}
    for one in given:
        name, equals, recipe = one.partition("=")
        name = name.strip()
        if not equals or not name or " " in name or "/" in name or not recipe.strip():
            raise BadRecipe(
                f"compare: --recipe {one!r} has no name. Write NAME=RECIPE: --recipe 'baseline=prune/weights keep=0.3'."
            )
        if name in named:
            raise BadRecipe(f"compare: two recipes are called {name!r}. Give each a name of its own.")
        named[name] = recipe.strip()
    return named


def read_seeds(text: str) -> list[int]:
    """Return "0,1,2" as numbers.  Raises BadRecipe for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadRecipe(f"compare: --seeds is a list of whole numbers, such as 0,1,2, got {text!r}.") from error


def write_reports(found: ComparedRecipes, folder: Path, seeds: list[int]) -> list[Path]:
    """Write each run's report, and a chart for each cost that is known; return the paths of the charts."""
    for name, reports in found.reports.items():
        for seed, report in zip(seeds, reports, strict=True):
            write_whole(folder / name / str(seed) / "report.json", report.as_json().encode())
    charts = {folder / f"{cost}.svg": found.svg(cost) for cost in COSTS if found.costs(found.base, cost)}
    for path, drawing in charts.items():
        write_whole(path, drawing.encode())
    return list(charts)
