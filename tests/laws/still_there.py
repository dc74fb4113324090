"""Still there: whether a later stage keeps what earlier ones made of a network."""

from dataclasses import dataclass

import torch
from torch import nn

from cortado.network.finalize import finalized_copy
from cortado.network.weight import Weight, parameter_places
from cortado.parts.activations.quantizer import sites
from cortado.parts.blocks.block import blocks_in
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.gate import Gate
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form

SAYS_SO = ("given up", "gives up", "give up", "no longer", "grows")
"""Words with which a note tells that something of before is gone."""
FLOATS = 32
GROWS = 1.2
"""So many times the bits of before, or more, are called growth: a scale more or less is none."""


def says_so(notes: tuple[str, ...]) -> bool:
    """Return whether a note tells that something is gone."""
    return any(word in note for note in notes for word in SAYS_SO)


@dataclass(frozen=True)
class Made:
    """What methods have made of a network, finalized: its forms, ties, bypasses, gates, roundings and folded norms."""

    network: nn.Module

    @property
    def weights(self) -> dict[str, Weight]:
        return {weight.path: weight for weight in parameter_places(self.network)}

    @property
    def modules(self) -> dict[str, nn.Module]:
        return dict(self.network.named_modules())

    @property
    def bypasses(self) -> set[str]:
        return {path for path, layer in self.modules.items() if isinstance(layer, Bypass)}

    @property
    def gates(self) -> set[str]:
        return {path for path, layer in blocks_in(self.network) if isinstance(layer, Gate)}

    @property
    def folded(self) -> set[str]:
        return {path for path, layer in self.modules.items() if isinstance(layer, ScaleShift)}


def gone(before: nn.Module, after: nn.Module) -> list[str]:
    """Return what methods had made of `before` and is not in `after`, in words."""
    old, new = Made(finalized_copy(before)), Made(finalized_copy(after))
    found = [f"block {path} is back" for path in old.bypasses - new.bypasses]
    found += [f"gate {path} is gone" for path in old.gates - new.gates - new.bypasses]
    found += [f"norm {path} has statistics again" for path in (old.folded - new.folded) & set(new.modules)]
    roundings = sites(new.network)
    for site, quantizer in sites(old.network).items():
        bits = roundings[site].bits() if site in roundings else FLOATS
        stands = site[0] in new.modules and site[0] not in new.bypasses
        found += [f"{site} of {quantizer.bits()} bits has {bits}"] if stands and bits > quantizer.bits() else []
    both = [(weight, new.weights[path]) for path, weight in old.weights.items() if path in new.weights]
    return found + lost_in_weights(both)


def lost_in_weights(both: list[tuple[Weight, Weight]]) -> list[str]:
    """Return what weights have lost, all together: ties, cuts, ranks, zeros, and forms in whose place more bits stand."""
    found = []
    for old, new in both:
        if len(new.places) < len(old.places):
            found.append(f"{old.path} is tied no more")
        if any(now > was for now, was in zip(new.shape, old.shape, strict=True)):
            found.append(f"{old.path} grew from {tuple(old.shape)} to {tuple(new.shape)}")
        if "LowRank" in kinds(old.form) - kinds(new.form) and rank(new) > rank(old):
            found.append(f"the rank of {old.path} went from {rank(old)} to {rank(new)}")
    masked = [(old, new) for old, new in both if "Masked" in kinds(old.form)]
    survivors, alive = (sum(int(one[at].dense().count_nonzero()) for one in masked) for at in (0, 1))
    if alive > survivors:
        found.append(f"{alive} entries are alive, and {survivors} were")
    changed = [(old, new) for old, new in both if kinds(old.form) - kinds(new.form)]
    bits, now = (sum(one[at].form.bits() for one in changed) for at in (0, 1))
    if now > GROWS * bits:
        names = {kind for old, new in changed for kind in kinds(old.form) - kinds(new.form)}
        found.append(f"{' and '.join(sorted(names))} gave way: {bits:.0f} bits became {now:.0f}")
    return found


def kinds(form: Form) -> set[str]:
    """Return the kinds of form in a form, floats left out."""
    return {type(part).__name__ for part in form.modules() if isinstance(part, Form) and not isinstance(part, Dense)}


def rank(weight: Weight) -> int:
    """Return the rank of a weight as a matrix of its outputs."""
    return int(torch.linalg.matrix_rank(weight.dense().flatten(1).double(), rtol=1e-5))
