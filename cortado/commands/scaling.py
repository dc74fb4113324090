"""Scaling: the command scale, which finds how depth, width and resolution of a job's network grow together."""

from dataclasses import replace
from pathlib import Path

import click
import yaml

from cortado.commands.given import device_option, in_words, progress_here
from cortado.engine.job import read_job
from cortado.engine.recipe import make_stage
from cortado.errors import BadRecipe, Stopped
from cortado.file.whole import write_whole
from cortado.methods.finetune import Finetune
from cortado.planner.scaling import Scaling, scale_table
from cortado.planner.sensitivity.deadline import seconds_of
from cortado.quantities import count_text, read_quantity


@click.command("scale")
@click.argument("job")
@click.option("--to", "limit", required=True, help="Multiply-adds of one sample: '40 M'.")
@click.option("--each", default="1 min", show_default=True, help="Training time of each candidate of the grid.")
@click.option("--out", default="scaled.yaml", show_default=True, help="The job to write.")
@click.option("--seed", type=int, help="Random seed of the task.")
@device_option
@in_words
def scale_command(job: str, limit: str, each: str, out: str, seed: int | None, device: str) -> None:
    """Scale the network of JOB to a cost: find alpha, beta and gamma on a small grid, then write a job for the limit.

    Depth grows by alpha, width by beta, resolution by gamma, so that multiply-adds double: alpha x beta^2 x gamma^2 = 2. Each
    candidate is trained for the same time, and the best one on validation data is carried to the limit. JOB is a file whose
    network takes two or more of the options depth, width and resolution, with a training.
    """
    made = read_job(job, seed)
    if not made.training or "network" not in made.text:
        raise BadRecipe("scale: the job needs a network by name and a training, such as train: {epochs: 5, lr: 0.1}.")
    if made.open_options:
        raise BadRecipe(f"scale: the base has one value for each option, but {', '.join(made.open_options)} are open.")
    learn = make_stage("finetune", dict(made.training), "job, train")
    assert isinstance(learn, Finetune)
    task = replace(made.make_task(), device=device)
    options, wanted = dict(made.text.get("options") or {}), read_quantity(limit, "count")
    scaling = Scaling(made.text["network"], options, task, learn.training, progress_here())
    try:
        ranked, phi, found = scaling.scaled(wanted, seconds_of(each, "scale"))
    except KeyboardInterrupt:
        raise Stopped("scale: interrupted. Nothing was written.") from None
    click.echo(scale_table(ranked, task.metric.unit))
    text = {key: value for key, value in made.text.items() if key != "weights"} | {"options": found.options}
    write_whole(Path(out), yaml.safe_dump(text, sort_keys=False).encode())
    values = ", ".join(f"{name} {found.options[name]:g}" for name in scaling.names)
    click.echo(f"\nphi {phi:g}: {values}; {count_text(found.multiply_adds)} multiply-adds\njob: {out}")
