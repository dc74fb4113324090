"""Running: the commands export, bench and split, which run a network in a runtime."""

from pathlib import Path

import click

from cortado.commands.given import in_words, network_and_example, network_of, threads_option
from cortado.report.pages.clocks import exported_text
from cortado.report.pages.kernels import kernel_table_text
from cortado.runtimes.compare import check_tolerance
from cortado.runtimes.edges import with_edges
from cortado.runtimes.export import export
from cortado.runtimes.file_bench import bench_file
from cortado.runtimes.folder import check_target
from cortado.runtimes.runtime import installed
from cortado.runtimes.split import find_cuts
from cortado.runtimes.timing import check_load


@click.command("export")
@click.argument("job")
@click.option("--runtime", default="onnxruntime", show_default=True, help="onnxruntime, openvino, torch_eager ...")
@click.option("--out", required=True, help="Folder for the files; it appears complete or not at all.")
@click.option(
    "--tolerance",
    type=float,
    help="Largest allowed difference, as a share of the largest output; default 0.001, for integers 0.1.",
)
@click.option("--merge", is_flag=True, help="Merge layers that read the same input into one product and a split.")
@click.option(
    "--gather", is_flag=True, help="Let convolutions multiply only the remaining columns, if few; not always faster."
)
@in_words
@click.option(
    "--rounds-inputs",
    is_flag=True,
    help="Products of few bits may round their inputs to 8 bits: faster, about 1 % off.",
)
@click.option(
    "--standard",
    is_flag=True,
    help="No operators of Cortado, whose library stands beside the file: zeros run as floats.",
)
@click.option("--layout", help="nhwc: the file takes and gives pictures channels last (litert).")
@click.option("--edges", help="int8: the file takes and gives 8-bit integers (litert).")
def export_command(
    job: str, runtime: str, out: str, tolerance: float | None, merge: bool, gather: bool, rounds_inputs: bool, standard: bool,
    layout: str | None, edges: str | None,
) -> None:  # fmt: skip
    """Export JOB, a job or a bundle, to a runtime, after comparing the outputs with PyTorch's."""
    (target,) = installed([runtime], rounds_inputs, not standard)
    with_edges(target, layout, edges)
    check_target(Path(out))
    if tolerance is not None:
        check_tolerance(tolerance)
    network, task = network_of(job)
    row = export(
        network, task, target, out, tolerance=tolerance, merge=merge, gather=gather, layout=layout, edges=edges
    )
    click.echo(
        f"{out}: {row.runtime} {row.version}, {row.size_bytes:,} bytes\n{exported_text(row, task.metric.name, task.metric.unit)}"
    )
    if kernel_table_text(row):
        click.echo(f"\n{kernel_table_text(row)}")


@click.command("bench")
@click.argument("file")
@click.option("--batch", default=1, show_default=True, help="Batch size.")
@threads_option
@click.option("--seconds", default=5.0, show_default=True, help="Approximate measuring time in seconds.")
@click.option("--open-axes", type=int, help="Length of the variable axes of the file, apart from the batch.")
@in_words
def bench_command(file: str, batch: int, threads: int, seconds: float, open_axes: int | None) -> None:
    """Time FILE (.onnx, .xml of OpenVINO, .tflite, .pte, .pt2) on random inputs of its declared shapes."""
    click.echo(bench_file(Path(file), batch, threads, seconds, open_axes).text())


@click.command("split")
@click.argument("job")
@threads_option
@in_words
def split_command(job: str, threads: int) -> None:
    """List where JOB, a job, a bundle or an .onnx file, can be split in two: bytes to send, and the time on each side."""
    check_load("split", (1,), threads)
    network, example = network_and_example(job)
    click.echo(find_cuts(network, example, threads).text())
