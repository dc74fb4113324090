"""Law: cutting channels that carry exactly zero leaves the output unchanged; checked on one network of the zoo."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bench.zoo.declared import contradictions
from bench.zoo.entry import Entry
from bench.zoo.predicted import count_after, zeroed
from cortado.errors import CortadoError
from cortado.network.coupling.cut import cut
from cortado.network.coupling.find import find_groups
from cortado.network.coupling.groups import Group, Groups

KEEP = 0.6
"""Share of the units of every group that stays; of two or four units half stay."""
SAME = 1e-4
"""Largest difference from the zeroed network, over its largest output, at which a cut is exact."""
ALIVE = 1e-3
"""The uncut, unzeroed network has to differ by more than this: otherwise the law would hold for a dead network too."""
FRESH = 7
"""Seed of the inputs on which outputs are compared: not those that the network was traced on."""


def checked(entry: Entry) -> dict[str, Any]:
    """What became of one network: its groups, the cut of all exact ones against the zeroed network, the cut of all."""
    network, example = entry.network(), entry.example()
    times: dict[str, float] = {}
    with timed(times, "find"):
        groups = find_groups(network, example)
    exact = [group for group in groups.free if group.exact]
    found = {
        "free": len(groups.free),
        "exact_groups": len(exact),
        "parameters": parameters(network),
        "frozen": why(groups, "cannot follow", without=True),
        "refused": why(groups, "cannot follow"),
        "inexact": sorted({group.reason for group in groups.free if not group.exact})[:8],
    }
    with torch.no_grad():
        found["cut_of_exact"] = exact_cut(entry, network, groups, exact, times) if exact else None
        alike = len(exact) == len(groups.free)
        found["cut_of_all"] = found["cut_of_exact"] if alike else full_cut(entry, network, groups)
    return {**found, **{name: round(seconds, 3) for name, seconds in times.items()}}


@contextmanager
def timed(times: dict[str, float], what: str) -> Iterator[None]:
    """Add up seconds on the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    times[f"{what}_s"] = time.perf_counter() - clock
    times[f"{what}_processor_s"] = time.process_time() - processor


def why(groups: Groups, words: str, without: bool = False) -> list[str]:
    """The different reasons for which entries are left whole, with (or without) these words in them."""
    return sorted({entry.reason for entry in groups.frozen if (words in entry.reason) is not without})[:24]


def drawn(groups: list[Group]) -> dict[Group, Tensor]:
    """Units to keep of each group, drawn at random."""
    generator = torch.Generator().manual_seed(1)
    return {g: torch.randperm(g.count, generator=generator)[: max(1, round(KEEP * g.count))] for g in groups}


def exact_cut(
    entry: Entry, network: nn.Module, groups: Groups, exact: list[Group], times: dict[str, float]
) -> dict[str, Any]:
    """All exact groups cut: outputs against those of the zeroed network, parameters against the prediction."""
    keeps, one = drawn(exact), copy.deepcopy(network)
    fresh = entry.example(FRESH)
    original, zero = outputs(network, fresh), outputs(zeroed(network, groups, keeps), fresh)
    try:
        with timed(times, "cut"):
            cut(one, groups, keeps)
        answer = outputs(one, fresh)
    except (CortadoError, RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        return {"error": said(error)}
    return {
        "difference": difference(answer, zero),
        "control": difference(original, zero),
        "parameters": parameters(one),
        "predicted": count_after(groups, keeps),
        "contradictions": contradictions(one)[:4],
    }


def full_cut(entry: Entry, network: nn.Module, groups: Groups) -> dict[str, Any]:
    """All free groups cut, those too whose cut changes means or norms: it has to run, with the predicted parameters."""
    keeps, one = drawn(groups.free), copy.deepcopy(network)
    try:
        cut(one, groups, keeps)
        outputs(one, entry.example(FRESH))
    except (CortadoError, RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        return {"error": said(error)}
    return {
        "parameters": parameters(one),
        "predicted": count_after(groups, keeps),
        "contradictions": contradictions(one)[:4],
    }


def said(error: BaseException) -> str:
    """An error in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def parameters(network: nn.Module) -> int:
    """How many there are, tied ones once."""
    return sum(value.numel() for value in network.parameters())


def outputs(network: nn.Module, example: Any) -> list[Tensor]:
    """All tensors a network gives, in eval mode and without gradients."""
    with torch.no_grad():
        found = network.eval()(*example) if isinstance(example, tuple) else network.eval()(example)
    return [value for value in torch.utils._pytree.tree_leaves(found) if isinstance(value, Tensor)]


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference of two answers over the largest output; infinite where their shapes differ."""
    if [value.shape for value in found] != [value.shape for value in wanted]:
        return float("inf")
    worst = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in zip(found, wanted, strict=True)]
    return max(worst) if all(value == value for value in worst) else float("inf")
