"""Reading: the commands profile, explain, inspect, unpack, report and verify, which read a network, a file or a bundle."""

import sys
from pathlib import Path
from typing import Any

import click
from safetensors.torch import save as as_safetensors

from cortado.commands.given import (
    GOAL_MISSED,
    deep_compression_option,
    file_path,
    forms_beside,
    in_words,
    maker_for,
    network_and_example,
    threads_option,
)
from cortado.engine.bundle import FILE, check_bundle
from cortado.engine.job import own_tensors, read_job
from cortado.engine.verify import verify
from cortado.errors import BadValue
from cortado.file.artifact import load
from cortado.file.beside import restarts_beside
from cortado.file.inspection import inspect as inspect_file
from cortado.file.whole import write_whole
from cortado.network.compare.explain import explain
from cortado.network.profile.profile import profile as profile_network
from cortado.network.statistics.gradients import released
from cortado.report.pages.html import report_html
from cortado.report.pages.terminal import report_text
from cortado.report.report import read_report
from cortado.runtimes.by_layer import time_layers
from cortado.runtimes.measured import batch_of
from cortado.runtimes.timing import check_load


@click.command("profile")
@click.argument("job")
@click.option(
    "--time", "timed", is_flag=True, help="Time in PyTorch by kind of layer, and its share of the measured peak."
)
@click.option("--batch", default=1, show_default=True, help="Batch size for --time.")
@threads_option
@in_words
def profile_command(job: str, timed: bool, batch: int, threads: int) -> None:
    """Show parameters, multiply-adds, activations and bytes of each layer of JOB: a job, a bundle or an .onnx file."""
    check_load("profile", (batch,), threads)
    network, example = network_and_example(job)
    click.echo(profile_network(network, example).text())
    if timed:
        click.echo("\n" + time_layers(network, batch_of(example, batch), threads).text())


@click.command("explain")
@click.argument("bundle")
@click.option("--images", default=32, show_default=True, help="Calibration samples for the comparison.")
@click.option("--job", help="The job it was made from, if the bundle does not contain the original network's weights.")
@in_words
def explain_command(bundle: str, images: int, job: str | None) -> None:
    """Show, layer by layer, where the compressed network of BUNDLE differs from the original."""
    folder = Path(bundle)
    if not folder.is_dir() or images < 1:
        raise BadValue(f"explain: needs a bundle's folder and at least 1 image, got {bundle} and {images}.")
    check_bundle(folder)
    made = read_job(job or bundle, read_report(folder / "report.json").seed)
    task = made.make_task()
    original = made.original_again(task, folder)
    if restarts_beside(folder):
        raise BadValue(
            f"explain: the network of {bundle} is a student or a cascade, whose layers the original network does not have. "
            "The report compares its rounded layers with those before rounding."
        )
    network = load(folder / FILE, original, (*read_job(bundle).forms, *made.forms))
    assert task.calibration is not None
    click.echo(explain(original, network, task.calibration, images).text())


@click.command("inspect")
@click.argument("file")
@click.option("--job", help="The job it was made from; adds names and shapes.")
@in_words
def inspect_command(file: str, job: str | None) -> None:
    """Show how many bytes each part of FILE takes."""
    made = read_job(job) if job else None
    forms = forms_beside(file) if made is None else (*forms_beside(file), *made.forms)
    click.echo(inspect_file(file_path(file), None if made is None else maker_for(file, made), forms).text())


@click.command("unpack")
@click.argument("file")
@click.argument("job")
@click.argument("out")
@in_words
def unpack_command(file: str, job: str, out: str) -> None:
    """Write the weights in FILE to OUT as dense safetensors."""
    if not Path(out).absolute().parent.is_dir():
        raise BadValue(f"unpack: the folder of {out} does not exist. Create it first, or choose another path.")
    made = read_job(job)
    network = load(file_path(file), maker_for(file, made), (*forms_beside(file), *made.forms))
    dense = dense_state(network)
    write_whole(Path(out), as_safetensors(dense))
    click.echo(f"{out}: {len(dense)} tensors, {Path(out).stat().st_size:,} bytes")


@click.command("report")
@click.argument("bundle")
@click.option("--html", "page", help="Also write the HTML page to this path.")
@deep_compression_option
@in_words
def report_command(bundle: str, page: str | None, deep_compression: bool) -> None:
    """Check the files of a bundle against their checksums and show its report."""
    folder = Path(bundle)
    if folder.is_dir():
        check_bundle(folder)
    report = read_report(folder / "report.json" if folder.is_dir() else folder)
    if page:
        write_whole(Path(page), report_html(report, deep_compression).encode())
    click.echo(report_text(report, deep_compression))


@click.command("verify")
@click.argument("bundle")
@click.option("--job", help="The job it was made from, if the bundle does not contain the original network's weights.")
@in_words
def verify_command(bundle: str, job: str | None) -> None:
    """Measure BUNDLE again on this machine and compare with its report.  Exit status 3: a figure is not confirmed."""
    found = verify(bundle, job)
    click.echo(found.text())
    sys.exit(0 if found.agrees else GOAL_MISSED)


def dense_state(network: Any) -> dict[str, Any]:
    """Return the state dict of the network as dense tensors, under the original network's names."""
    return own_tensors(released(network))
