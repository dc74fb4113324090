"""CLI: the command line, one group of all commands."""

import sys
from pathlib import Path

import click

from cortado import __version__
from cortado.commands.beginning import check_command, init_command
from cortado.commands.blaming import blame_command
from cortado.commands.comparing import compare_command
from cortado.commands.compressing import compress_command, plan_command
from cortado.commands.costing import cost_command
from cortado.commands.describing import methods_command
from cortado.commands.reading import (
    explain_command,
    inspect_command,
    profile_command,
    report_command,
    unpack_command,
    verify_command,
)
from cortado.commands.running import bench_command, export_command, split_command
from cortado.commands.scaling import scale_command
from cortado.commands.searching import search_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Compress trained PyTorch networks and measure the result.

    JOB is a YAML file, or a Python file whose function `job` returns a network and a Task: file.py, or
    file.py:maker and package.module:maker for a function of another name.
    """
    sys.path.insert(0, str(Path.cwd()))


for command in (
    init_command, check_command, compress_command, search_command, scale_command, plan_command, export_command,
    bench_command, profile_command, explain_command, split_command, blame_command, inspect_command, unpack_command,
    report_command, verify_command, compare_command, cost_command, methods_command,
):  # fmt: skip
    main.add_command(command)
