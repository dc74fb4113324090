"""Still there: whether a later stage keeps what an earlier one made of a network."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.bypass import Bypass
from cortado.network.view import parameter_places
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.training.finalize import finalized

SAYS_SO = ("given up", "gives up", "no longer", "grows", "larger")
"""Words with which a note tells that something of before is gone."""


def says_so(notes: tuple[str, ...]) -> bool:
    """Return whether a note tells that something is gone."""
    return any(word in note for note in notes for word in SAYS_SO)


def made_by_methods(network: nn.Module) -> dict[str, Any]:
    """Return what is no longer as in a network without forms: its forms, shapes, ties, bypasses, roundings, folded norms."""
    network = finalized(network)
    weights = parameter_places(network)
    norms = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    return {
        "forms": {weight.path: weight.form for weight in weights},
        "values": {weight.path: weight.dense() for weight in weights},
        "ties": {frozenset(id(layer) for layer, _ in weight.places): weight.path for weight in weights},
        "tied": {weight.path: len(weight.places) for weight in weights if len(weight.places) > 1},
        "bypasses": {path for path, layer in network.named_modules() if isinstance(layer, Bypass)},
        "activations": {site: quantizer.bits() for site, quantizer in sites(network).items()},
        "folded": {path for path, norm in norms if not norm.running_mean.any()},
    }


def gone(before: nn.Module, after: nn.Module) -> list[str]:
    """Return what methods had made of `before` and is not in `after`, in words."""
    old, new = made_by_methods(before), made_by_methods(after)
    found = [f"block {path} is back" for path in old["bypasses"] - new["bypasses"]]
    found += [f"norm {path} has statistics again" for path in old["folded"] - new["folded"] if path in modules(after)]
    found += [f"{path} is tied no more" for path, n in old["tied"].items() if new["tied"].get(path, n if path not in new["forms"] else 1) < n]
    for site, bits in old["activations"].items():
        if site[0] in modules(after) and new["activations"].get(site, 32) > bits:
            found.append(f"activation {site} of {bits} bits passes in {new['activations'].get(site, 32)}")
    for path, form in old["forms"].items():
        if path in new["forms"]:
            found += [f"{path}: {what}" for what in lost(form, new["forms"][path], old["values"][path], new["values"][path])]
    return found


def modules(network: nn.Module) -> dict[str, nn.Module]:
    return dict(network.named_modules())


def lost(form: Form, later: Form, values: Tensor, now: Tensor) -> list[str]:
    """Return what the later form has lost of the earlier one: its kind, unless it costs less, its zeros, its cut."""
    found = []
    if kinds(form) - kinds(later) and later.bits() > form.bits():
        found.append(f"{' '.join(sorted(kinds(form)))} of {form.bits():.0f} bits became {' '.join(sorted(kinds(later))) or 'floats'} of {later.bits():.0f}")
    if any(new > old for new, old in zip(now.shape, values.shape, strict=True)):
        found.append(f"it grew from {tuple(values.shape)} to {tuple(now.shape)}")
    if "Masked" in kinds(form) and now.count_nonzero() > values.count_nonzero():
        found.append(f"of {values.numel()} entries {now.count_nonzero()} are not zero, and {values.count_nonzero()} were")
    if "LowRank" in kinds(form) and "LowRank" not in kinds(later) and rank(now) > rank(values):
        found.append(f"its rank went from {rank(values)} to {rank(now)}")
    return found


def kinds(form: Form) -> set[str]:
    """Return the kinds of form in a form, floats left out."""
    return {type(part).__name__ for part in form.modules() if isinstance(part, Form) and not isinstance(part, Dense)}


def rank(values: Tensor) -> int:
    """Return the rank of a weight as a matrix of its outputs."""
    return int(torch.linalg.matrix_rank(values.flatten(1).double(), rtol=1e-5))
