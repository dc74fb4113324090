"""Blaming: the command blame, which finds what the layers of a file in integers cost."""

import click

from cortado.blame.files import blame_files, read_samples
from cortado.commands.given import in_words


@click.command("blame")
@click.argument("file")
@click.argument("original")
@click.option(
    "--samples", help="Inputs in a .npy file, or .npz for several, samples first; for .onnx random numbers if omitted."
)
@click.option(
    "--error",
    type=click.FloatRange(0, 10),
    help="Find the fewest layers to leave in floats for this error: 0.05 is 5 %.",
)
@click.option("--rows", default=20, show_default=True, help="Number of layers to show.")
@click.option("--json", "as_json", is_flag=True, help="Print all layers as JSON.")
@in_words
def blame_command(file: str, original: str, samples: str | None, error: float | None, rows: int, as_json: bool) -> None:
    """List the layers of FILE, in integers, in the order of what they cost the outputs, against the float file ORIGINAL.

    Both .onnx or both .xml of OpenVINO. The error is the root mean square, as a share of the outputs' spread.
    """
    found = blame_files(file, original, None if samples is None else read_samples(samples), error)
    click.echo(found.json() if as_json else found.text(rows))
