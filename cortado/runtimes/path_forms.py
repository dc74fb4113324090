"""Path forms: write a network whose paths depend on the input in every form that a runtime has, and keep the fastest."""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from cortado.errors import BadNetwork, comes_from_system
from cortado.parts.blocks.rows import chooses_rows
from cortado.quantities import time_text
from cortado.running.call import call
from cortado.running.trees import map_tensors
from cortado.runtimes.gate_times import gate_times
from cortado.runtimes.positions import POSITIONS, chooses_positions
from cortado.runtimes.runtime import Running, Runtime
from cortado.runtimes.staged import STAGES
from cortado.runtimes.stream import stream_of, streamed
from cortado.task.data import Data

INPUTS, SECONDS = 200, 2.0
"""Samples, and about how long, to choose a form."""
FEW = 50
"""Of these samples, to say whether gates pay."""


def lower_fastest(
    runtime: Runtime, network: nn.Module, low: nn.Module, example: Any, data: Data, folder: Path
) -> tuple[Path, str]:
    """Write a lowered network into a folder, in its fastest form if its paths depend on the input.

    Returns the main file and what was tried, "" for one path. Raises what `lower` and `fastest_paths` raise.
    """
    if chooses_rows(low) and len(runtime.path_forms) > 1:
        return fastest_paths(runtime, network, low, example, data, folder)
    return runtime.lower(low, example, folder), ""


def fastest_paths(
    runtime: Runtime, network: nn.Module, low: nn.Module, example: Any, data: Data, folder: Path
) -> tuple[Path, str]:
    """Write the form that is fastest on the data, one sample at a time; return its file and what was tried.

    `low` is `network`, lowered. The text tells whether gates pay. A form that the runtime cannot write or run is left out.
    Raises BadNetwork if it can run none.
    """
    inputs = stream_of(data, 1, INPUTS)
    with tempfile.TemporaryDirectory() as scratch:
        files, failed = written_forms(runtime, low, example, Path(scratch), inputs[0])
        calls = [[partial(call, Running(runtime.load(file, 1)), given) for given in inputs] for file in files.values()]
        taken = streamed(calls, SECONDS).mean((0, 2))
        order = sorted(zip(taken.tolist(), files, strict=True))
        chosen = files[order[0][1]]
        for part in chosen.parent.iterdir():
            shutil.move(part, folder / part.name)
    gates = gate_times(runtime.with_paths(order[0][1]), network, example, inputs[:FEW])
    times = ", ".join(f"{form} {time_text(ms)}" for ms, form in order)
    found = f"{times}: the mean of {len(inputs)} samples, one at a time"
    found += "".join(f"; {form} cannot run here ({why})" for form, why in failed.items())
    return folder / chosen.name, found if gates is None else f"{found}; {gates.text()}"


def written_forms(
    runtime: Runtime, low: nn.Module, example: Any, folder: Path, inputs: Any
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the file of each form, written below a folder, and why others cannot be written or run.

    Raises BadNetwork if there is no file.
    """
    files: dict[str, Path] = {}
    failed: dict[str, Exception] = {}
    for form in forms_for(runtime, low):
        own = folder / form
        own.mkdir()
        try:
            files[form] = runtime.with_paths(form).lower(low, example, own)
            run_once(Running(runtime.load(files[form], 1)), inputs)
        except Exception as error:
            if comes_from_system(error) or not (form in files or isinstance(error, BadNetwork)):
                raise
            files.pop(form, None)
            failed[form] = error
    reasons = {form: " ".join(str(error).split())[:200] for form, error in failed.items()}
    if not files:
        why = "; ".join(f"{form}: {reason}" for form, reason in reasons.items())
        raise BadNetwork(
            f"{runtime.name()}: it can run none of the forms of paths that depend on the input: {why}. Try another runtime."
        ) from next(iter(failed.values()))
    return files, reasons


def forms_for(runtime: Runtime, low: nn.Module) -> list[str]:
    """Return the forms of paths that a runtime knows and the network can gain from."""
    left_out = set() if chooses_positions(low) else {POSITIONS}
    if runtime.layout or runtime.integer_edges:
        # Such a file is read by a device: it has to be one.
        left_out.add(STAGES)
    return [form for form in runtime.path_forms if form not in left_out]


def run_once(running: Running, inputs: Any) -> None:
    """Run one sample, and none: where nobody is left, what follows gets an empty batch."""
    for given in (inputs, map_tensors(lambda part: part[:0], inputs)):
        call(running, given)
