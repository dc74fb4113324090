"""Export: write a network as a folder of files for one runtime, checked against PyTorch."""

import logging
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.errors import BadFile, BadNetwork, describe
from cortado.lowering.lower import lowered
from cortado.machine import instruction_sets, processor_name
from cortado.network.finalize import finalized_copy
from cortado.parts.activations.quantizer import sites
from cortado.parts.blocks.rows import chooses_rows
from cortado.quantities import size_text, time_text
from cortado.report.report import Exported
from cortado.running.brought import accept
from cortado.running.call import call
from cortado.running.trees import tensors_in, to_device
from cortado.runtimes.compare import ANY_KIND, Agreement, check, check_tolerance, compare, default_tolerance
from cortado.runtimes.edges import ChannelsFirstSession, require_integers, rounded_ends, with_edges, with_own_edges
from cortado.runtimes.folder import whole_folder, write_facts
from cortado.runtimes.path_forms import lower_fastest
from cortado.runtimes.placements import placements
from cortado.runtimes.runtime import Running, Runtime, Session, float_types, installed, type_name
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.outputs import Outputs
from cortado.task.task import Task

NEIGHBOURS, FEW = (1, 7), 64
"""Batches in which so many samples are compared once more, where paths depend on the input."""
LOG = logging.getLogger(__name__)


def export(
    network: nn.Module,
    task: Task,
    runtime: Runtime | str,
    folder: str | Path,
    *,
    data: Data | None = None,
    tolerance: float | None = None,
    merge: bool = False,
    gather: bool = False,
    rounds_inputs: bool = False,
    own_operators: bool = True,
    layout: str | None = None,
    edges: str | None = None,
) -> Exported:
    """Write `network` for `runtime` into `folder` (atomically), with an export.json that describes it; return its row.

    >>> row = cortado.export(net, task, "onnxruntime", "exported")

    The network is lowered (see lowering/lower.py; `merge` sibling layers, `gather` the remaining columns of convolutions)
    for any batch size and compared with PyTorch on `data` (default: the validation data): outputs within `tolerance` of the
    largest one (default 0.001, for integers 0.1), score, same top-1. With `rounds_inputs` products of few bits may round
    their inputs to 8 bits, which is faster and about 1 % off. Without `own_operators` the file needs nothing but its runtime;
    with them zeros and shared weights are computed by a library beside it. `layout="nhwc"` and `edges="int8"` write files that
    take and give pictures channels last, and 8-bit integers, in runtimes that have such files (litert).
    Raises MissingPackage, BadNetwork for operators that cannot be traced or that the runtime lacks, OutputsDiffer, and
    BadValue for a folder that cannot be written, a tolerance below 0, or a layout or edges that the runtime lacks.
    """
    accept(network, "export")
    if tolerance is not None:
        check_tolerance(tolerance)
    data = task.validation if data is None else data
    (target,) = installed([runtime], rounds_inputs, own_operators) if isinstance(runtime, str) else [runtime]
    target = with_edges(target, layout, edges)
    ends = rounded_ends(network, task.calibration or task.train) if target.integer_edges else None
    with whole_folder(Path(folder)) as partial:
        return export_into(
            partial, network, task.example, target, data, task.metric, tolerance, merge, gather, task.outputs, ends
        )[1]


def export_into(
    folder: Path, network: nn.Module, example: Any, runtime: Runtime, data: Data, score: Metric | None,
    tolerance: float | None = None, merge: bool = False, gather: bool = False, kind: Outputs = ANY_KIND,
    ends: nn.Module | None = None,
) -> tuple[Path, Exported]:  # fmt: skip
    """Export into an existing empty folder; return the main file and its row.

    `ends`: the network with rounded outputs, which is written in its place and compared with it.
    """
    start = time.perf_counter()
    if tolerance is None:
        tolerance = default_tolerance(network, runtime)
    runtime.require()
    runtime.require_floats(network, example)
    # The file holds what training leaves: rounded scales alone flip signs, and the next layer multiplies them.
    network = finalized_copy(network)
    low = lowered(network if ends is None else ends, example, merge=merge, gather=gather)
    file, paths = lower_fastest(runtime, network, low, example, data, folder)
    session = own_session(runtime, file, network, example)
    agreement = compare(session, network, data, score, kind=kind, tolerance=tolerance)
    inputs, _ = next(data.batches(8))
    check(agreement, tolerance, with_own_edges(runtime), network, inputs)
    for batch in NEIGHBOURS if chooses_rows(low) else ():
        # What a sample gets may not depend on the others in its batch.
        few = compare(session, network, data.first(FEW), batch=batch, kind=kind, tolerance=tolerance)
        check(few, tolerance, with_own_edges(runtime), network, inputs)
    size_bytes = sum(part.stat().st_size for part in folder.iterdir())
    row = export_row_of(agreement, runtime, size_bytes, bool(sites(network)))
    row = replace(row, placements=placements(runtime, file, network, example, low), paths=paths)
    if row.rounded:
        row = replace(row, float_operators=runtime.float_operators(file), edges=runtime.edges(file))
    if runtime.integer_edges:
        require_integers(row.edges, runtime)
    write_facts(folder, {**export_facts(row, file, tolerance, score), "layout": runtime.layout or "the network's"})
    taken = time_text(1000 * (time.perf_counter() - start))
    LOG.info("export of %s for %s: %s, %s", type(network).__name__, row.runtime, size_text(size_bytes), taken)
    return file, row


def refusal_of(network: nn.Module, task: Task, runtime: Runtime) -> str:
    """Return a sentence on why a network cannot run in a runtime, "" if it can: what it lacks shows in seconds."""
    try:
        runtime.require_floats(network, task.example)
        low = lowered(finalized_copy(network), task.example)
        with tempfile.TemporaryDirectory() as folder:
            session = own_session(runtime, runtime.lower(low, task.example, Path(folder)), network, task.example)
            return other_shapes(session, task, runtime)
    except BadNetwork as error:
        return str(error)


def other_shapes(session: Session, task: Task, runtime: Runtime) -> str:
    """Return a sentence if a file cannot take validation data because they are shaped otherwise than the example, else ""."""
    inputs, _ = next(task.validation.batches(FEW))
    wanted, found = ([tuple(one.shape[1:]) for one in tensors_in(given)] for given in (task.example, inputs))
    if wanted == found:
        return ""
    try:
        call(Running(session), inputs)
    except Exception as error:
        shapes = " and ".join(f"{one[0] if len(one) == 1 else one}" for one in (wanted, found))
        return (
            f"{runtime.name()}: its file takes inputs of one shape, but samples of the example and of the validation data have "
            f"{shapes} ({describe(error)}). Pad all inputs to one length or size."
        )
    return ""


def own_session(runtime: Runtime, file: Path, network: nn.Module, example: Any) -> Session:
    """Return a session of the file just written, after one run.  Raises BadNetwork if the runtime cannot run it."""
    try:
        session = runtime.load(file, 1)
        if runtime.layout:
            session = ChannelsFirstSession(session)
        call(Running(session), to_device(example, torch.device("cpu")))
    except Exception as error:
        cause = error.__cause__ if isinstance(error, BadFile) and error.__cause__ else error
        words = " ".join(str(cause).replace(str(file), file.name).split())
        rare = [type_name(dtype) for dtype in float_types(network, example) if dtype != torch.float32]
        way_out = (
            f"The network holds {rare[0]}: call .float() on it and on its inputs first."
            if rare
            else "Replace that operator by others, or try another runtime."
        )
        raise BadNetwork(
            f"{runtime.name()}: {type(network).__name__} was written, but the runtime cannot run it: "
            f"{type(cause).__name__}: {words[:300]}. {way_out}"
        ) from error
    return session


def export_row_of(agreement: Agreement, runtime: Runtime, size_bytes: int, rounded: bool = False) -> Exported:
    """Return the report's row of one runtime's file."""
    return Exported(
        runtime.name(), runtime.version(), size_bytes, agreement.score, agreement.torch_score,
        agreement.difference, agreement.same_top, agreement.samples, rounded=rounded, other_paths=agreement.other_paths,
    )  # fmt: skip


def export_facts(row: Exported, file: Path, tolerance: float, score: Metric | None) -> dict[str, object]:
    """Return the contents of export.json."""
    return {
        "runtime": row.runtime,
        "version": row.version,
        "file": file.name,
        "size_bytes": row.size_bytes,
        "compared_on_samples": row.samples,
        "largest_difference_share": row.difference,
        "tolerance_share": tolerance,
        "same_top_share": row.same_top,
        "samples_on_other_paths": row.other_paths,
        "integer_share_of_multiply_adds": row.integer_share,
        "float_operators": list(row.float_operators),
        "edges": [asdict(edge) for edge in row.edges],
        "paths": row.paths,
        "placements": [asdict(placement) for placement in row.placements],
        "score": None if score is None else f"{score.name} in {score.unit}",
        "score_in_runtime": row.score,
        "score_in_torch": row.torch_score,
        "processor": processor_name(),
        "instruction_sets": list(instruction_sets()),
    }
