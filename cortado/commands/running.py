"""Running: export, bench, split - what a network does in a runtime."""

from pathlib import Path

import click

from cortado.commands.given import in_words, network_of, threads_option
from cortado.report.pages.clocks import exported_text
from cortado.runtimes.compare import check_tolerance
from cortado.runtimes.export import export
from cortado.runtimes.file_bench import bench_file
from cortado.runtimes.folder import check_target
from cortado.runtimes.runtime import installed
from cortado.runtimes.split import find_cuts
from cortado.runtimes.timing import check_load


@click.command("export")
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
        f"{out}: {row.runtime} {row.version}, {row.size_bytes:,} bytes\n{exported_text(row, task.metric.name, task.metric.unit)}"
    )


@click.command("bench")
@click.argument("file")
@click.option("--batch", default=1, show_default=True)
@threads_option
@click.option("--seconds", default=5.0, show_default=True, help="About so long is measured.")
@click.option("--open-axes", type=int, help="Length of axes that the file leaves open, besides the batch.")
@in_words
def bench_command(file: str, batch: int, threads: int, seconds: float, open_axes: int | None) -> None:
    """Time FILE (.onnx, .xml of OpenVINO, .tflite, .pte, .pt2) on random inputs of its declared shapes."""
    click.echo(bench_file(Path(file), batch, threads, seconds, open_axes).text())


@click.command("split")
@click.argument("job")
@threads_option
@in_words
def split_command(job: str, threads: int) -> None:
    """Where the network of JOB, or of a bundle, could be cut in two: bytes to send, and the time on either side."""
    check_load("split", (1,), threads)
    network, task = network_of(job, trained=False)
    click.echo(find_cuts(network, task.example, threads).text())
