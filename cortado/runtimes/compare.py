"""Compare: outputs of a file in its runtime against PyTorch, on real data."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cortado.errors import BadValue, CortadoError, OutputsDiffer
from cortado.lowering.lower import lowered
from cortado.machine import processor_saturates
from cortado.network.coupling.answers import difference
from cortado.network.graph.trace import undisturbed
from cortado.parts.activations.quantizer import sites
from cortado.parts.blocks.rows import chooses_rows
from cortado.parts.forms.form import Form
from cortado.running.call import call
from cortado.running.trees import sample_count, tensors_in, without_objects
from cortado.runtimes.runtime import Running, Runtime, Session
from cortado.task.data import Data
from cortado.task.measure import metric_shares, scored
from cortado.task.metric import Metric
from cortado.task.outputs.automatic import Automatic
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.outputs import Outputs, float_parts, same_shapes

TOLERANCE = 1e-3
"""Share of the largest output by which a float32 file may differ from PyTorch."""
INTEGER_TOLERANCE = 0.1
"""The same for an integer file: values near the edge of a step round either way, and later layers propagate that."""
OTHER_PATHS = 0.02
"""Share of the samples that may take another path than in PyTorch, where paths depend on the input: at a threshold, rounding
decides."""
TINY = 1e-30
MOST_LAYERS = 60
ANY_KIND = Automatic()
RUNS_OVER = "8-bit weights saturate on this processor, which has no VNNI: use 7 bits (quantize/weights bits=7)."


@dataclass(frozen=True)
class Agreement:
    """`difference`: the largest, as a share of the largest output; `same_top`: the share of samples (or places) with the same
    decision, such as the top-1, None if outputs are no decisions; scores are in the metric's unit, None without a metric.

    `other_paths`: how many samples took another path than in PyTorch; `difference` leaves them out.
    """

    difference: float
    same_top: float | None
    score: float | None
    torch_score: float | None
    samples: int
    other_paths: int = 0


def compare(
    session: Session, network: nn.Module, data: Data, score: Metric | None = None, batch: int = 64,
    kind: Outputs = ANY_KIND, tolerance: float = TOLERANCE,
) -> Agreement:  # fmt: skip
    """Run both on `data` and compare their outputs, which are of this `kind`.

    Where paths depend on the input, a sample that differs by more than `tolerance` counts as one that took another path, as
    long as these are few.
    """
    running = Running(session)
    furthest, equal, samples = list[Tensor](), list[Tensor | None](), 0
    far = sample_differences if chooses_rows(network) else whole_difference
    rows: tuple[list[Any], list[Any]] = ([], [])
    with undisturbed(network):
        for inputs, targets in data.batches(batch):
            wanted = without_objects(call(network, inputs))
            found = shaped_like(wanted, call(running, inputs))
            furthest.append(far(tensors_in(found), tensors_in(wanted)))
            equal.append(same_decisions(kind, found, wanted, targets))
            samples += sample_count(inputs)
            if score is not None:
                for place, given in enumerate((found, wanted)):
                    rows[place].append(scored(score, given, targets))
    known = [one for one in equal if one is not None]
    share = float(torch.cat(known).mean()) if len(known) == len(equal) else None
    means = [
        None if score is None else float(metric_shares(score, part).double().mean()) * score.scale for part in rows
    ]
    differences = torch.cat(furthest)
    few = int(OTHER_PATHS * samples) if chooses_rows(network) else 0
    worst, others = without_other_paths(differences, tolerance, few)
    return Agreement(worst, share, means[0], means[1], samples, others)


def without_other_paths(differences: Tensor, tolerance: float, few: int) -> tuple[float, int]:
    """Return the largest difference, and how many samples above `tolerance` it leaves out: at most `few`, else none."""
    above = differences > tolerance
    others = int(above.sum())
    # Outputs that are no numbers, or of another shape, are no other path.
    if 0 < others <= few and others < len(differences) and bool(torch.isfinite(differences).all()):
        return float(differences[~above].max()), others
    return float(differences.max()), 0


def whole_difference(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Return (1,): the largest difference between the outputs of a batch, as a share of the largest one."""
    return torch.tensor([difference(found, wanted)], dtype=torch.double)


def sample_differences(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Return (N,): the largest difference of each sample's outputs, as a share of the largest one in the batch."""
    worst = difference(found, wanted)
    if not math.isfinite(worst):
        return torch.tensor([worst], dtype=torch.double)
    parts = [
        (one.double() - other.double()).abs().flatten(1).amax(1) / max(float(other.abs().max()), TINY)
        for one, other in zip(found, wanted, strict=True)
    ]
    return torch.stack(parts).amax(0)


def shaped_like(wanted: Any, found: Any) -> Any:
    """Return a file's output tensors in the structure of the network's outputs.

    They are returned unchanged if their number differs.
    """
    leaves, structure = pytree.tree_flatten(wanted)
    tensors = iter(tensors_in(found))
    filled = [next(tensors, None) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    missing = any(isinstance(leaf, Tensor) and value is None for leaf, value in zip(leaves, filled, strict=True))
    return found if missing or next(tensors, None) is not None else pytree.tree_unflatten(filled, structure)


def same_decisions(kind: Outputs, found: Any, wanted: Any, targets: Any) -> Tensor | None:
    """Return (N,): the share of places at which both decide alike, such as the same top-1; None without decisions.

    Outputs of an unstated kind decide only if their targets are labels: integers (N, ...) for outputs (N, classes, ...).
    """
    if isinstance(kind, Automatic):
        labels = isinstance(targets, Tensor) and not targets.is_floating_point() and not targets.is_complex()
        shapes = [part.shape for part in float_parts(wanted).values()]
        if not labels or len(shapes) != 1 or len(shapes[0]) < 2 or shapes[0][1] < 2:
            return None
        if targets.shape != (shapes[0][0], *shapes[0][2:]):
            return None
        kind = Classes(axis=1)
    pair = [kind.rows(outputs) for outputs in (wanted, found)]
    return kind.agreement(*pair) if same_shapes(*pair) else None


def default_tolerance(network: nn.Module, runtime: Runtime) -> float:
    """Return the default tolerance for a runtime's file of this network."""
    return INTEGER_TOLERANCE if sites(network) or runtime.rounds_inputs else TOLERANCE


def check_tolerance(tolerance: float) -> None:
    """Raise BadValue for a tolerance that is negative or not finite."""
    if not 0 <= tolerance < math.inf:
        raise BadValue(f"export: tolerance must be at least 0 and finite, got {tolerance:g}. Write --tolerance 0.001.")


def check(agreement: Agreement, tolerance: float, runtime: Runtime, network: nn.Module, inputs: Any) -> None:
    """Raise OutputsDiffer above the tolerance, naming the responsible layer if it can be found."""
    if agreement.difference <= tolerance:
        return
    layer = blamed_layer(runtime, network, inputs, tolerance)
    where = f" It begins at {layer}." if layer else " No single layer is responsible."
    cause = f" {RUNS_OVER}" if runs_over(network) else ""
    raise OutputsDiffer(
        f"{runtime.name()}: outputs differ from PyTorch's by {agreement.difference:.2g} of the largest output on "
        f"{agreement.samples} samples; at most {tolerance:g} is allowed.{where}{cause} "
        "Nothing was written. Try another runtime, or allow more with --tolerance."
    )


def runs_over(network: nn.Module) -> bool:
    """Return whether 8-bit products saturate here: processors without VNNI add pairs of them in 16 bits."""
    wide = any(wide_codes(part) for part in network.modules() if isinstance(part, Form))
    return bool(sites(network)) and wide and processor_saturates()


def wide_codes(form: Form) -> bool:
    """Return whether a weight on an even grid has codes that use the last of 8 bits."""
    lattice = form.lattice()
    return lattice is not None and lattice.codes.numel() > 0 and bool(lattice.codes.abs().max() > 64)


def blamed_layer(runtime: Runtime, network: nn.Module, inputs: Any, tolerance: float) -> str | None:
    """Return the first layer, in order of calls, that differs in the runtime when run alone; None if there is none."""
    tried: set[int] = set()
    for path, layer, given in calls_of(network, inputs):
        if id(layer) in tried or len(tried) >= MOST_LAYERS:
            continue
        tried.add(id(layer))
        try:
            far = layer_difference(runtime, layer, given)
        except CortadoError:
            continue
        if not far <= tolerance:
            return f"{path} ({type(layer).__name__}), which differs by {far:.2g} on its own"
    return None


def layer_difference(runtime: Runtime, layer: nn.Module, given: tuple[Any, ...]) -> float:
    """Return the difference between one layer in PyTorch and in the runtime."""
    with tempfile.TemporaryDirectory() as folder:
        session = runtime.load(runtime.lower(lowered(layer, given), given, Path(folder)), 1)
        with torch.no_grad():
            return difference(list(session(*given)), tensors_in(layer(*given)))


def calls_of(network: nn.Module, inputs: Any) -> list[tuple[str, nn.Module, tuple[Any, ...]]]:
    """Return every call of a leaf module: its path, the module, and its input tensors."""
    found: list[tuple[str, nn.Module, tuple[Any, ...]]] = []

    def note(path: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...]) -> None:
            if given and all(isinstance(part, Tensor) for part in given):
                found.append((path, layer, tuple(part.detach().clone() for part in given)))

        return hook

    leaves = [(path, layer) for path, layer in network.named_modules() if path and not list(layer.children())]
    hooks = [layer.register_forward_pre_hook(note(path)) for path, layer in leaves]
    try:
        with undisturbed(network):
            call(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
