"""The command line: compress, plan, export, bench, profile, explain, split, inspect, unpack, report."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click
from safetensors.torch import save as as_safetensors
from torch import nn

from cortado.budget import read_limits
from cortado.bundle import FILE, check_bundle, write_bundle
from cortado.compress import compress
from cortado.errors import BadRecipe, BadValue, CortadoError, Stopped
from cortado.file.artifact import load
from cortado.file.inspection import inspect as inspect_file
from cortado.file.whole import check_writable, write_whole
from cortado.job import own_tensors, read_job
from cortado.network.explaining import explain
from cortado.network.gradients import released
from cortado.network.profile import profile as profile_network
from cortado.pages.clocks import exported_text
from cortado.pages.html import report_html
from cortado.pages.terminal import report_text
from cortado.planner.forecast import forecast
from cortado.planner.goal import MINIMISE, reach
from cortado.planner.outlook import Outlook
from cortado.progress import Terminal, quiet
from cortado.recipe import read as read_recipe
from cortado.report import read_report
from cortado.runtimes.by_layer import time_layers
from cortado.runtimes.compare import check_tolerance
from cortado.runtimes.export import export
from cortado.runtimes.file_bench import bench_file
from cortado.runtimes.folder import check_target
from cortado.runtimes.measured import batch_of
from cortado.runtimes.runtime import installed
from cortado.runtimes.speed import speed_wanted
from cortado.runtimes.split import find_cuts
from cortado.runtimes.timing import check_load
from cortado.task import Task

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

    return wrapped


threads_option = click.option("--threads", default=1, show_default=True, help="Threads to time with.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cortado")
def main() -> None:
    """Make trained PyTorch networks small and fast, and prove it.

    A JOB is package.module:maker (returning a network and a Task) or a YAML file.
    """
    sys.path.insert(0, str(Path.cwd()))


@main.command("compress")
@click.argument("job")
@click.option("--recipe", help="A YAML file, or one line: 'prune/weights keep=0.3 | tune epochs=2'.")
@click.option("--limit", "limits", multiple=True, help="'size <= 100 KB' or 'score >= -0.5 %'; may be repeated.")
@click.option("--out", default="runs/latest", show_default=True, help="Folder for the bundle and the kept stages.")
@click.option("--resume", is_flag=True, help="Go on after the last finished stage in the folder.")
@click.option("--seed", type=int, help="Seed of the task.")
@click.option("--time", "runtimes", multiple=True, help="Export to this runtime, score and time it; may be repeated.")
@click.option("--batch", "batches", multiple=True, type=int, default=(1,), show_default=True, help="With --time.")
@click.option("--minimise", default="size", show_default=True, type=click.Choice(MINIMISE), help="Without a recipe.")
@click.option("--budget", help="'30 min': without a recipe, or in its place; trials begin as long as it lasts.")
@threads_option
@in_words
def compress_command(
    job: str, recipe: str | None, limits: tuple[str, ...], out: str, resume: bool, seed: int | None,
    runtimes: tuple[str, ...], batches: tuple[int, ...], minimise: str, budget: str | None, threads: int,
) -> None:  # fmt: skip
    """Compress JOB by a recipe, or, without one, by what the planner finds for the limits; writes a bundle with its proof.

    Exit status 3: a limit was missed.
    """
    made = read_job(job, seed)
    chosen = made.recipe if recipe is None and budget is None else recipe
    wanted = limits or made.limits
    if chosen is None and not wanted:
        raise BadRecipe(
            "compress: nothing says how: no recipe and no limits. Try --limit 'score >= -0.5 %', or "
            "--recipe 'quantize/weights bits=8'."
        )
    chosen = None if chosen is None else read_recipe(chosen)
    speed_wanted(runtimes, read_limits(wanted), batches, threads)
    check_writable(Path(out), "compress")
    progress = Terminal() if sys.stderr.isatty() else quiet()
    told: dict[str, Any] = {"runtimes": runtimes, "batches": batches, "threads": threads, "progress": progress}
    try:
        task = made.make_task()
        plain = made.plain(task, Path(out), progress)
        if chosen is not None:
            small, report = compress(plain, task, chosen, limits=wanted, folder=out, resume=resume, **told)
        else:
            found = reach(
                plain, task, wanted, minimise=minimise, budget=budget or "30 min", folder=out, resume=resume, **told
            )
            small, report = found.network, found.report
            click.echo(found.text() + "\n")
        folder = write_bundle(out, small, plain, report, made.text)
    except KeyboardInterrupt:
        raise Stopped("compress: interrupted; finished stages and trials are kept. --resume goes on.") from None
    click.echo(report_text(report))
    click.echo(f"\nbundle: {folder}\nreport: {folder / 'report.html'}")
    sys.exit(0 if report.met else GOAL_MISSED)


@main.command("plan")
@click.argument("job")
@click.option("--limit", "limits", multiple=True, help="'size <= 100 KB' or 'score >= -0.5 %'; may be repeated.")
@click.option("--seed", type=int, help="Seed of the task.")
@in_words
def plan_command(job: str, limits: tuple[str, ...], seed: int | None) -> None:
    """Before any training: what files of several sizes will cost JOB, whether limits look reachable, and what can help."""
    made = read_job(job, seed)
    wanted = read_limits(limits or made.limits)
    progress = Terminal() if sys.stderr.isatty() else quiet()
    task = made.make_task()
    plain = made.plain(task, None, progress)
    size = sum(value.numel() * value.element_size() for value in plain.state_dict().values())
    found = forecast(plain, plain, task, progress=progress)
    click.echo(Outlook(found, size, task.score.name, task.score.unit, wanted).text())


@main.command("export")
@click.argument("job")
@click.option("--runtime", default="onnxruntime", show_default=True, help="onnxruntime, openvino, torch_eager ...")
@click.option("--out", required=True, help="Folder for the files; it appears whole or not at all.")
@click.option(
    "--tolerance", type=float, help="Largest difference, as a share of the largest output; 0.001, in integers 0.1."
)
@click.option("--merge", is_flag=True, help="Layers that read one input become one product and a split.")
@click.option(
    "--gather", is_flag=True, help="Convolutions multiply only the columns that are left, if few are; time it."
)
@in_words
def export_command(job: str, runtime: str, out: str, tolerance: float | None, merge: bool, gather: bool) -> None:
    """Write the network of JOB, or of a bundle, for a runtime; its outputs are compared with PyTorch's first."""
    (target,) = installed([runtime])
    check_target(Path(out))
    if tolerance is not None:
        check_tolerance(tolerance)
    network, task = network_of(job)
    row = export(network, task, target, out, tolerance=tolerance, merge=merge, gather=gather)
    click.echo(
        f"{out}: {row.runtime} {row.version}, {row.size_bytes:,} bytes\n{exported_text(row, task.score.name, task.score.unit)}"
    )


@main.command("bench")
@click.argument("file")
@click.option("--batch", default=1, show_default=True)
@threads_option
@click.option("--seconds", default=5.0, show_default=True, help="About so long is measured.")
@click.option("--open-axes", type=int, help="Length of axes that the file leaves open, besides the batch.")
@in_words
def bench_command(file: str, batch: int, threads: int, seconds: float, open_axes: int | None) -> None:
    """Time FILE (.onnx, .xml of OpenVINO, .tflite, .pte, .pt2) on random inputs of its declared shapes."""
    click.echo(bench_file(Path(file), batch, threads, seconds, open_axes).text())


@main.command("profile")
@click.argument("job")
@click.option(
    "--time", "timed", is_flag=True, help="Time by layer kind in PyTorch, and its share of the measured peak."
)
@click.option("--batch", default=1, show_default=True, help="With --time.")
@threads_option
@in_words
def profile_command(job: str, timed: bool, batch: int, threads: int) -> None:
    """Parameters, multiply-adds, activations and bytes of the network of JOB, or of a bundle, layer by layer."""
    check_load("profile", (batch,), threads)
    network, task = network_of(job, trained=False)
    click.echo(profile_network(network, task.example).text())
    if timed:
        click.echo("\n" + time_layers(network, batch_of(task.example, batch), threads).text())


@main.command("explain")
@click.argument("bundle")
@click.option("--images", default=32, show_default=True, help="Calibration samples that both networks are compared on.")
@click.option("--job", help="The job it was made from, where the bundle does not lead to the plain network's weights.")
@in_words
def explain_command(bundle: str, images: int, job: str | None) -> None:
    """At which layers the compressed network of BUNDLE begins to differ from the plain one, layer by layer."""
    folder = Path(bundle)
    if not folder.is_dir() or images < 1:
        raise BadValue(f"explain: it needs a bundle's folder and 1 image or more, got {bundle} and {images}.")
    check_bundle(folder)
    made = read_job(job or bundle, read_report(folder / "report.json").seed)
    task = made.make_task()
    plain = made.plain_again(task, folder)
    network = load(folder / FILE, plain)
    assert task.calibration is not None
    click.echo(explain(plain, network, task.calibration, images).text())


@main.command("split")
@click.argument("job")
@threads_option
@in_words
def split_command(job: str, threads: int) -> None:
    """Where the network of JOB, or of a bundle, could be cut in two: bytes to send, and the time on either side."""
    check_load("split", (1,), threads)
    network, task = network_of(job, trained=False)
    click.echo(find_cuts(network, task.example, threads).text())


@main.command("inspect")
@click.argument("file")
@click.option("--job", help="The job it was made from: adds names and shapes.")
@in_words
def inspect_command(file: str, job: str | None) -> None:
    """Where the bytes of FILE go."""
    click.echo(inspect_file(path_of(file), read_job(job).make if job else None).text())


@main.command("unpack")
@click.argument("file")
@click.argument("job")
@click.argument("out")
@in_words
def unpack_command(file: str, job: str, out: str) -> None:
    """Write the dense weights that FILE holds as safetensors."""
    if not Path(out).absolute().parent.is_dir():
        raise BadValue(f"unpack: the folder of {out} does not exist. Make it first, or write elsewhere.")
    network = load(path_of(file), read_job(job).make)
    dense = dense_state(network)
    write_whole(Path(out), as_safetensors(dense))
    click.echo(f"{out}: {len(dense)} tensors, {Path(out).stat().st_size:,} bytes")


@main.command("report")
@click.argument("bundle")
@click.option("--html", "page", help="Write the page here as well.")
@in_words
def report_command(bundle: str, page: str | None) -> None:
    """Show the report of a bundle, after checking its files against their checksums."""
    folder = Path(bundle)
    if folder.is_dir():
        check_bundle(folder)
    report = read_report(folder / "report.json" if folder.is_dir() else folder)
    if page:
        write_whole(Path(page), report_html(report).encode())
    click.echo(report_text(report))


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
    return chosen.plain(task, None, Terminal() if sys.stderr.isatty() else quiet()), task


def path_of(file: str) -> Path:
    """The .cortado file itself, or the one in a bundle."""
    path = Path(file)
    return path / FILE if path.is_dir() else path


def dense_state(network: Any) -> dict[str, Any]:
    """The state dict of the network as plain tensors under the plain network's names."""
    return own_tensors(released(network))
