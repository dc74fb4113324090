"""Compare: what a file gives in its runtime against PyTorch, on real data."""

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
from cortado.parts.forms.quantized import Quantized
from cortado.running.trees import tensors_in
from cortado.runtimes.runtime import Running, Runtime, Session
from cortado.task.measure import outputs_of, scored
from cortado.task.task import Data, Metric

TOLERANCE = 1e-3
"""Share of the largest output by which a float32 file may differ from PyTorch."""
INTEGER_TOLERANCE = 0.1
"""The same for a file in integers: a value on the edge of a step falls on either side, and later layers carry that on."""
MOST_LAYERS = 60
RUNS_OVER = (
    "Weights of 8 bits run over on this processor, which has no VNNI: round them to 7 (quantize/weights bits=7)."
)


@dataclass(frozen=True)
class Agreement:
    """`difference` is the largest one, as a share of the largest output; `same_top` the share of samples with the same
    largest output, None where outputs are not classes; scores are in the score's unit, None without a score."""

    difference: float
    same_top: float | None
    score: float | None
    torch_score: float | None
    samples: int


def compare(
    session: Session, network: nn.Module, data: Data, score: Metric | None = None, batch: int = 64
) -> Agreement:
    """Run both on `data` and compare output by output."""
    running = Running(session)
    furthest, equal, known, samples = 0.0, 0.0, True, 0
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    with undisturbed(network):
        for inputs, targets in data.batches(batch):
            wanted = outputs_of(network, inputs)
            found = shaped_like(wanted, outputs_of(running, inputs))
            furthest = max(furthest, difference(tensors_in(found), tensors_in(wanted)))
            same = same_top(found, wanted, targets)
            known, equal = known and same is not None, equal + (same or 0.0)
            samples += len(targets)
            if score is not None:
                for place, given in enumerate((found, wanted)):
                    rows[place].append(scored(score, given, targets).double())
    means = [None if score is None else float(score.shares(torch.cat(part)).mean()) * score.scale for part in rows]
    return Agreement(furthest, equal / samples if known else None, means[0], means[1], samples)


def shaped_like(wanted: Any, found: Any) -> Any:
    """The tensors of a file, which knows only their order, in the dicts and tuples that the network gives them in.

    As they are when there are more or fewer of them.
    """
    leaves, structure = pytree.tree_flatten(wanted)
    tensors = iter(tensors_in(found))
    filled = [next(tensors, None) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    missing = any(isinstance(leaf, Tensor) and value is None for leaf, value in zip(leaves, filled, strict=True))
    return found if missing or next(tensors, None) is not None else pytree.tree_unflatten(filled, structure)


def same_top(found: Any, wanted: Any, targets: Any) -> float | None:
    """Return how many samples have their largest output in the same place.

    None unless outputs are classes: (N, classes, ...) beside whole-numbered targets (N, ...).
    """
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor) or wanted.dim() < 2 or wanted.shape[1] < 2:
        return None
    labels = isinstance(targets, Tensor) and not targets.is_floating_point() and not targets.is_complex()
    if not labels or targets.shape != (wanted.shape[0], *wanted.shape[2:]):
        return None
    same = found.argmax(1) == wanted.argmax(1)
    return float(same.flatten(1).double().mean(1).sum()) if same.dim() > 1 else float(same.sum())


def default_tolerance(network: nn.Module) -> float:
    """How far a file of this network may be from it."""
    return INTEGER_TOLERANCE if sites(network) else TOLERANCE


def check_tolerance(tolerance: float) -> None:
    """Raises BadValue for what no difference can be compared with."""
    if not 0 <= tolerance < math.inf:
        raise BadValue(f"export: tolerance must be a number from 0 on, got {tolerance:g}. Write --tolerance 0.001.")


def check(agreement: Agreement, tolerance: float, runtime: Runtime, network: nn.Module, inputs: Any) -> None:
    """Raises OutputsDiffer, with the layer that is to blame where it can be found, above the tolerance."""
    if agreement.difference <= tolerance:
        return
    layer = blamed_layer(runtime, network, inputs, tolerance)
    where = f" It begins at {layer}." if layer else " No single layer does it alone."
    raise OutputsDiffer(
        f"{runtime.name()}: outputs differ from PyTorch's by {agreement.difference:.2g} of the largest output on "
        f"{agreement.samples} samples; at most {tolerance:g} is allowed.{where}{saturation(network)} "
        "Nothing was written. Try another runtime, or allow more with --tolerance."
    )


def saturation(network: nn.Module) -> str:
    """A likely cause, where there is one: see `runs_over`."""
    return f" {RUNS_OVER}" if runs_over(network) else ""


def runs_over(network: nn.Module) -> bool:
    """Whether products of 8 bits run over here: before VNNI, processors add pairs of them in 16 bits."""
    wide = any(isinstance(form, Quantized) and form.codes.abs().max() > 64 for form in network.modules())
    return bool(sites(network)) and wide and processor_saturates()


def blamed_layer(runtime: Runtime, network: nn.Module, inputs: Any, tolerance: float) -> str | None:
    """The first layer, in the order they run, that alone gives other outputs in the runtime; None if none does."""
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
            return f"{path} ({type(layer).__name__}), which alone differs by {far:.2g}"
    return None


def layer_difference(runtime: Runtime, layer: nn.Module, given: tuple[Any, ...]) -> float:
    """How far a layer alone is from itself in the runtime."""
    with tempfile.TemporaryDirectory() as folder:
        session = runtime.load(runtime.lower(lowered(layer, given), given, Path(folder)), 1)
        with torch.no_grad():
            return difference(list(session(*given)), tensors_in(layer(*given)))


def calls_of(network: nn.Module, inputs: Any) -> list[tuple[str, nn.Module, tuple[Any, ...]]]:
    """Every call of a module without modules inside: its path, itself, and the tensors it was given."""
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
            outputs_of(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
