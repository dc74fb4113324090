"""Beginning: the commands init, which writes a job, and check, which says what a job brings before anything is changed."""

import sys
from pathlib import Path
from typing import Any

import click
import yaml

from cortado.commands.given import in_words, progress_here
from cortado.engine.first_look import first_look
from cortado.engine.job import read_job
from cortado.errors import BadRecipe
from cortado.file.whole import write_whole

HEAD = """# What to compress.  Next:
#   cortado check {name}
#   cortado compress {name} --limit "score >= -1 %" --time-limit "10 min" --measure-in onnxruntime --out runs/first
"""


@click.command("check")
@click.argument("job")
@in_words
def check_command(job: str) -> None:
    """Say what JOB brings: network, data, score, channels that can be cut, methods that find work.  It changes nothing."""
    made = read_job(job)
    task = made.make_task()
    click.echo(first_look(made.trusted(task), task, progress_here()).text())


@click.command("init")
@click.option("--network", help="file.py:maker, package.module:maker, a built-in name, or an ONNX file.")
@click.option("--weights", help="A file or folder of its weights: .safetensors, .npz, .pt, .pth, .ckpt.")
@click.option(
    "--data", help="A folder of pictures, one folder for each class; a built-in task; or package.module:maker."
)
@click.option("--size", help="Size of the pictures in the folder: 224, or 240x320.")
@click.option("--out", default="job.yaml", show_default=True, help="The job to write.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@in_words
def init_command(
    network: str | None, weights: str | None, data: str | None, size: str | None, out: str, force: bool
) -> None:
    """Write a job for your network and data, and check it.  What the options leave open is asked for in a terminal."""
    path = Path(out)
    if path.exists() and not force:
        raise BadRecipe(f"init: {path} is there already. Give another --out, or --force to replace it.")
    asked = sys.stdin.isatty()
    network = network or answer(asked, "network", "Network (package.module:maker, a built-in name, an ONNX file)")
    data = data or answer(asked, "data", "Data (a folder of pictures, a built-in task, package.module:maker)")
    if weights is None and asked:
        weights = (
            click.prompt("Weights (a file; nothing if the maker loads them)", default="", show_default=False) or None
        )
    job = job_text(network, weights, data, size, path)
    write_whole(path, job.encode())
    click.echo(f"{path}:\n\n{job}")
    made = read_job(str(path))
    task = made.make_task()
    click.echo(first_look(made.trusted(task), task, progress_here()).text())


def answer(asked: bool, option: str, question: str) -> str:
    """Return what the user answers.  Raises BadRecipe where nobody can answer."""
    if not asked:
        raise BadRecipe(f"init: --{option} is missing, and there is no terminal to ask. Give it: cortado init --help.")
    return str(click.prompt(question))


def job_text(network: str, weights: str | None, data: str, size: str | None, path: Path) -> str:
    """Return the job as YAML; files stand there relative to it."""
    job: dict[str, Any] = {"network": network}
    if weights:
        job["weights"] = beside_job(Path(weights), path)
    folder = Path(data).expanduser()
    if folder.is_dir():
        job |= {
            "task": "folder",
            "task_options": {"path": str(folder.resolve())} | ({"size": read_size(size)} if size else {}),
        }
    elif ":" not in data and ("/" in data or "\\" in data):
        raise BadRecipe(f"init: there is no folder {data}. Check the path, or give package.module:maker.")
    else:
        job["task"] = data
    return HEAD.format(name=path) + yaml.safe_dump(job, sort_keys=False, allow_unicode=True)


def beside_job(file: Path, job: Path) -> str:
    """Return a file's path as a job names it.  Raises BadRecipe for a file that is not there."""
    if not file.exists():
        raise BadRecipe(f"init: there are no weights {file}. Check the path.")
    try:
        return str(file.resolve().relative_to(job.resolve().parent))
    except ValueError:
        return str(file.resolve())


def read_size(text: str) -> Any:
    """Return "224" or "240x320" as a number or [height, width].  Raises BadRecipe for anything else."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdigit() and int(part) for part in parts):
        raise BadRecipe(f"init: --size is a number of pixels, or HEIGHTxWIDTH, got {text!r}.")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else numbers
