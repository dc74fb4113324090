"""Export: a network as a folder of files for one runtime, compared with PyTorch before anything is kept."""

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.errors import BadFile, BadNetwork
from cortado.lowering.lower import lowered
from cortado.machine import instruction_sets, processor_name
from cortado.network.graph.trace import moved
from cortado.parts.activations.quantizer import sites
from cortado.quantities import size_text, time_text
from cortado.report.report import Exported
from cortado.running.brought import accept
from cortado.runtimes.compare import Agreement, check, check_tolerance, compare, default_tolerance
from cortado.runtimes.coverage import Coverage, Packing, coverage, packing
from cortado.runtimes.folder import whole_folder, write_facts
from cortado.runtimes.runtime import Running, Runtime, Session, float_types, installed, type_name
from cortado.task.measure import outputs_of
from cortado.task.task import Data, Metric, Task

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
) -> Exported:
    """Write `network` for `runtime` into `folder`, which appears whole or not at all, with an export.json that says what it is.

    >>> row = cortado.export(net, task, "onnxruntime", "exported")

    The network is lowered (see lowering/lower.py; `merge` its siblings, `gather` the columns that are left of convolutions),
    takes any batch, and is compared with itself in PyTorch on `data` (the task's validation data): outputs within `tolerance`
    of the largest one (by default 0.001, for a network in integers 0.1), score, same top-1.
    Raises MissingPackage, BadNetwork for what cannot be traced or is not known to the runtime, OutputsDiffer, and BadValue
    for a folder that cannot be written or a tolerance below 0.
    """
    accept(network, "export")
    tolerance = default_tolerance(network) if tolerance is None else tolerance
    check_tolerance(tolerance)
    data = task.validation if data is None else data
    (target,) = installed([runtime]) if isinstance(runtime, str) else [runtime]
    with whole_folder(Path(folder)) as partial:
        return export_into(partial, network, task.example, target, data, task.metric, tolerance, merge, gather)[1]


def export_into(
    folder: Path, network: nn.Module, example: Any, runtime: Runtime, data: Data, score: Metric | None,
    tolerance: float | None = None, merge: bool = False, gather: bool = False,
) -> tuple[Path, Exported]:  # fmt: skip
    """The same into an empty folder that exists; gives the main file too."""
    start = time.perf_counter()
    tolerance = default_tolerance(network) if tolerance is None else tolerance
    runtime.require()
    runtime.require_floats(network, example)
    low = lowered(network, example, merge=merge, gather=gather)
    file = runtime.lower(low, example, folder)
    agreement = compare(own_session(runtime, file, network, example), network, data, score)
    inputs, _ = next(data.batches(8))
    check(agreement, tolerance, runtime, network, inputs)
    size_bytes = sum(part.stat().st_size for part in folder.iterdir())
    packed = packing(runtime, file, network, low)
    whole = coverage(runtime, file, network, example)
    row = export_row_of(agreement, runtime, size_bytes, whole, packed, bool(sites(network)))
    if row.rounded:
        # What it does not tell by layers it may tell by operators.
        floats = runtime.float_operators(file) if whole is None else row.float_layers
        row = replace(row, float_layers=floats, edges=runtime.edges(file))
    write_facts(folder, export_facts(row, file, tolerance, score))
    taken = time_text(1000 * (time.perf_counter() - start))
    LOG.info("export of %s for %s: %s, %s", type(network).__name__, row.runtime, size_text(size_bytes), taken)
    return file, row


def own_session(runtime: Runtime, file: Path, network: nn.Module, example: Any) -> Session:
    """The file just written, after one run of it.  Raises BadNetwork when the runtime does not run what it was written."""
    try:
        session = runtime.load(file, 1)
        outputs_of(Running(session), moved(example, torch.device("cpu")))
    except Exception as error:
        cause = error.__cause__ if isinstance(error, BadFile) and error.__cause__ else error
        describe = " ".join(str(cause).replace(str(file), file.name).split())
        rare = [type_name(dtype) for dtype in float_types(network, example) if dtype != torch.float32]
        way_out = (
            f"The network holds {rare[0]}: call .float() on it and on its inputs first."
            if rare
            else "Replace that operator by others, or try another runtime."
        )
        raise BadNetwork(
            f"{runtime.name()}: {type(network).__name__} was written, but the runtime does not run it: "
            f"{type(cause).__name__}: {describe[:300]}. {way_out}"
        ) from error
    return session


def export_row_of(
    agreement: Agreement, runtime: Runtime, size_bytes: int, found: Coverage | None, packed: Packing | None,
    rounded: bool = False,
) -> Exported:  # fmt: skip
    """What was found of one runtime's file."""
    return Exported(
        runtime.name(), runtime.version(), size_bytes, agreement.score, agreement.torch_score,
        agreement.difference, agreement.same_top, agreement.samples,
        None if found is None else found.share, () if found is None else found.float_layers,
        None if packed is None else packed.weights, () if packed is None else packed.bits,
        () if packed is None else packed.dense, rounded,
    )  # fmt: skip


def export_facts(row: Exported, file: Path, tolerance: float, score: Metric | None) -> dict[str, object]:
    """What stands beside the files."""
    return {
        "runtime": row.runtime,
        "version": row.version,
        "file": file.name,
        "size_bytes": row.size_bytes,
        "compared_on_samples": row.samples,
        "largest_difference_share": row.difference,
        "tolerance_share": tolerance,
        "same_top_share": row.same_top,
        "integer_share_of_multiply_adds": row.integer_share,
        "float_layers": list(row.float_layers),
        "edges": [asdict(edge) for edge in row.edges],
        "packed_weights": row.packed_weights,
        "packed_bits": list(row.packed_bits),
        "dense_layers": list(row.dense_layers),
        "score": None if score is None else f"{score.name} in {score.unit}",
        "score_in_runtime": row.score,
        "score_in_torch": row.torch_score,
        "processor": processor_name(),
        "instruction_sets": list(instruction_sets()),
    }
