"""Teachers: networks whose outputs and inner layers train another one."""

import copy
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.nets.named import named_network
from cortado.network.view import View
from cortado.running.trees import pick
from cortado.training.objectives.objective import Observed
from cortado.training.precision import Precision, floats_in_float32, half_precision
from cortado.training.taps import TapHooks
from cortado.training.trees import joined

SLICE = 32
"""Images per teacher batch on a CPU: few enough for its activations to stay in cache."""


class Teachers:
    """Frozen copies of the teachers on a device, in eval mode: a teacher may be the user's network, which stays as it is."""

    def __init__(
        self, networks: Sequence[nn.Module], taps: Sequence[str], precision: str, device: torch.device
    ) -> None:
        """`taps`: paths in the first teacher."""
        copies = [copy.deepcopy(one).to(device).eval().requires_grad_(False) for one in networks]
        # Teachers only run forward, where even a shallow network gains from bfloat16.
        half = any(half_precision(one, precision, device, deep=1) for one in copies)
        self.networks, self.precision = copies, Precision(device, half, half)
        self.taps = [TapHooks(one, taps if number == 0 else (), "the teacher") for number, one in enumerate(copies)]

    def observe(self, inputs: Any) -> tuple[Observed, ...]:
        """Return what each teacher gives for a batch on its device, without gradients."""
        with torch.no_grad():
            return tuple(
                self.observed(network, taps, inputs) for network, taps in zip(self.networks, self.taps, strict=True)
            )

    def observed(self, network: nn.Module, taps: TapHooks, inputs: Any) -> Observed:
        """Return what one teacher gives; for images on a CPU, slice by slice."""
        sliced = isinstance(inputs, Tensor) and inputs.device.type == "cpu" and inputs.dim() == 4
        starts = range(0, len(inputs), SLICE) if sliced else (0,)
        parts = []
        for start in starts:
            few = pick(inputs, slice(start, start + SLICE)) if sliced else inputs
            outputs = self.precision.run(network, few)
            parts.append(Observed(outputs, floats_in_float32(taps.collect())))
        return parts[0] if len(parts) == 1 else joined(parts)

    def remove(self) -> None:
        """Take the hooks off the copies."""
        for one in self.taps:
            one.remove()


def teachers_of(named: Any, view: View) -> list[nn.Module]:
    """Return the networks for `named`: "original", package.module:maker, the name of a built-in network, {network: one of
    these, options: {...}, weights: file}, a network, or several of those. A note has the checksum of files of weights.

    Raises BadRecipe if one cannot be made, BadNetwork for weights that do not fit.
    """
    several = named if isinstance(named, (tuple, list)) else (named,)
    for one in several:
        if isinstance(one, Mapping) and one.get("weights"):
            view.notes.append(teacher_note(one))
    return [view.original if one == "original" else named_network(one, "teacher") for one in several]


def teacher_note(named: Mapping[str, Any]) -> str:
    """Return which weights a teacher has, with their checksum."""
    path = Path(named["weights"])
    checksum = blake2b(path.read_bytes(), digest_size=8).hexdigest() if path.is_file() else "missing"
    return f"teacher {named.get('network')} with the weights of {path.name}, checksum {checksum}"
