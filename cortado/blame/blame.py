"""Blame: the layers of a rounded network in the order of what they cost, and the fewest to leave in floats."""

import copy
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cortado.blame.units import roundings_of
from cortado.errors import BadNetwork, BadValue
from cortado.lowering.lower import dense
from cortado.network.graph.trace import call_with, device_of, trace, undisturbed
from cortado.network.profile.profile import cost_of_calls
from cortado.running.trees import map_tensors, tensors_in, to_device
from cortado.table import aligned

FAR = 0.5
"""A rounded weight that is off by more than this share of the weight in floats was not made from it."""


@dataclass(frozen=True)
class BlamedLayer:
    """A layer and its part in the error of the outputs, as a share of their spread.

    `alone`: the error with this layer alone rounded. `left` and `measured`: the error with this layer and all above it in
    floats, predicted from `alone`, and measured (None where it was not). `multiply_adds`: its share of the network's, None
    where unknown.
    """

    path: str
    alone: float
    left: float
    measured: float | None
    multiply_adds: float | None


@dataclass(frozen=True)
class Blame:
    """The layers, what costs most first.  `error`: that of the network as it is; `rest`: with all layers in floats.

    `floats`: the fewest layers, from the top, whose floats reach the error `wanted` (measured); None where none do, or
    nothing was wanted.
    """

    rows: tuple[BlamedLayer, ...]
    error: float
    rest: float
    samples: int
    wanted: float | None = None
    floats: tuple[str, ...] | None = None
    note: str = ""

    def text(self, most: int = 20) -> str:
        """Return a table of the first layers, and the set to leave in floats."""
        head = ("layer", "alone", "in floats down to here", "measured", "multiply-adds")
        shown = self.rows[: max(most, len(self.floats or ()))]
        rows = [
            (one.path, share(one.alone), share(one.left), share(one.measured), share(one.multiply_adds))
            for one in shown
        ]
        lines = [
            f"error of the outputs: {self.error:.2%} of their spread, {self.samples} samples; "
            f"with all layers in floats {self.rest:.2%}",
            "",
            aligned([head, *rows], "<>"),
        ]
        if len(shown) < len(self.rows):
            lines.append(f"and {len(self.rows) - len(shown)} more")
        if self.wanted is not None:
            lines += ["", self.answer()]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def answer(self) -> str:
        """Return one sentence about the wanted error."""
        if self.floats is None:
            return f"No set of layers in floats reaches {self.wanted:.2%}."
        if not self.floats:
            return f"The error is within {self.wanted:.2%} already: no layer has to stay in floats."
        reached = next((one.measured for one in self.rows if one.path == self.floats[-1]), None)
        costs = [one.multiply_adds for one in self.rows[: len(self.floats)]]
        work = "" if None in costs else f", {share(sum(one or 0 for one in costs))} of the multiply-adds"
        count = f"{len(self.floats)} layer{'s' if len(self.floats) > 1 else ''}"
        return (
            f"For an error of at most {self.wanted:.2%} instead of {self.error:.2%}, {count} in floats "
            f"({share(reached)} measured{work}): {', '.join(self.floats)}."
        )

    def json(self) -> str:
        """Return all figures as JSON."""
        return json.dumps(asdict(self), indent=1)


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


class Judge:
    """Measures the outputs of a rounded network with some layers in floats."""

    def __init__(
        self,
        original: nn.Module,
        rounded: nn.Module,
        samples: Sequence[Any],
        originals: Mapping[str, Tensor] | None,
        clips: bool,
    ) -> None:
        self.samples, self.rounded = (
            [to_device(one, device_of(rounded)) for one in samples],
            dense(rounded).requires_grad_(False),
        )
        self.wanted = [float_outputs(original, one) for one in self.samples]
        if not self.wanted or not self.wanted[0]:
            raise BadValue(
                "blame: needs at least one sample, and outputs of floats. Pass samples as the network takes them."
            )
        spreads = zip(*self.wanted, strict=True)
        self.scales = [float(torch.cat([one.flatten() for one in of]).std().clamp(min=1e-12)) for of in spreads]
        self.graph = trace(self.rounded, self.samples[0])
        originals = weights_of(original, self.rounded) if originals is None else originals
        self.units = roundings_of(self.rounded, self.graph, originals, clips)
        if not self.units.layers:
            raise BadNetwork(
                "blame: no layer of this network is rounded. Pass the integer network first, then the original."
            )

    def network(self, floats: Collection[str]) -> nn.Module:
        """Return the network with these layers in floats."""
        made = copy.deepcopy(self.rounded)
        self.units.leave(made, floats)
        return made

    def error(self, floats: Collection[str]) -> float:
        """Return the root mean square error of the outputs with these layers in floats, each in units of its spread."""
        network, squares = self.network(floats), list[float]()
        for inputs, wanted in zip(self.samples, self.wanted, strict=True):
            found = zip(float_outputs(network, inputs), wanted, self.scales, strict=True)
            squares += [float((one - other).square().mean()) / scale**2 for one, other, scale in found]
        return float(sum(squares) / len(squares)) ** 0.5

    def costs(self) -> dict[str, float | None]:
        """Return each layer's share of the multiply-adds."""
        calls = {path: [one for one in self.graph.every_call if one.path == path] for path in self.units.layers}
        found = {path: cost_of_calls([op for one in of for op in one.operators]) for path, of in calls.items()}
        total = cost_of_calls(list(self.graph.operators)) or 0
        return {path: cost / total if cost is not None and total else None for path, cost in found.items()}


def blame(
    original: nn.Module, rounded: nn.Module, samples: Any, wanted: float | None = None,
    originals: Mapping[str, Tensor] | None = None, clips: bool = False,
) -> Blame:  # fmt: skip
    """Return the layers of `rounded` in the order of what their rounding costs the outputs of `original`.

    >>> found = cortado.blame(net, small, task.validation.inputs[:8], wanted=0.05)

    `samples` are inputs, samples first. A layer in floats has its weight in floats, its output unrounded, and its input
    too, if no other layer reads that in integers. Each layer is rounded alone, so that the network runs once for each layer and
    sample: first-order estimates by gradients fail behind functions that are flat in places, such as hard-swish.
    `wanted`: find the fewest layers to leave in floats for this error, the root mean square as a share of the outputs'
    spread. `originals`: the layers' weights in floats, if they are not those of `original`; `clips`: grids from zero on
    stand for a ReLU too. Raises BadNetwork where nothing is rounded or layers do not correspond, BadValue for samples.
    """
    judge = Judge(original, rounded, one_by_one(samples), originals, clips)
    return judged(judge.error, judge.units.layers, judge.costs(), len(judge.samples), wanted)


def judged(
    error: Callable[[Collection[str]], float], layers: Sequence[str], costs: Mapping[str, float | None], samples: int,
    wanted: float | None,
) -> Blame:  # fmt: skip
    """Return the layers in the order of their error alone, and the fewest to leave in floats.

    `error(floats)` measures the outputs with these layers in floats. Squared errors of single layers add up, if they are
    small and independent; what decides is measured.
    """
    rest = error(layers)
    alone = {path: error([other for other in layers if other != path]) for path in layers}
    order = sorted(layers, key=lambda path: -alone[path])
    measured = {len(order): rest}

    def at(count: int) -> float:
        if count not in measured:
            measured[count] = error(order[:count])
        return measured[count]

    now, count = at(0), None if wanted is None else fewest(at, len(order), wanted)
    rows = []
    for number, path in enumerate(order, 1):
        left = sum(max(0.0, alone[other] ** 2 - rest**2) for other in order[number:])
        rows.append(BlamedLayer(path, alone[path], (rest**2 + left) ** 0.5, measured.get(number), costs[path]))
    return Blame(tuple(rows), now, rest, samples, wanted, None if count is None else tuple(order[:count]))


def fewest(error: Callable[[int], float], most: int, wanted: float) -> int | None:
    """Return the smallest count whose error is at most `wanted`, by doubling and halving; None if even `most` fails."""
    low, high = -1, 0
    while error(high) > wanted:
        if high == most:
            return None
        low, high = high, min(most, max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= wanted else (middle, high)
    return high


def weights_of(original: nn.Module, rounded: nn.Module) -> dict[str, Tensor]:
    """Return the weights in floats of the layers of a rounded network.  Raises BadNetwork if they do not correspond."""
    before, found = dict(dense(original).named_parameters()), dict[str, Tensor]()
    for path, weight in rounded.named_parameters():
        other = before.get(path)
        if not path.endswith("weight") or weight.dim() < 2:
            continue
        layer = path.removesuffix("weight").rstrip(".")
        if other is None or other.shape != weight.shape or is_far(other.detach(), weight.detach()):
            raise BadNetwork(
                f"blame: the weight of {layer or 'the network'} was not made from that of the original: its layer was cut, "
                "rescaled or trained in between. Pass the network as it was right before it was rounded."
            )
        found[layer] = other.detach()
    return found


def is_far(before: Tensor, now: Tensor) -> bool:
    """Return whether a weight is too far from the one that it should have been made from."""
    return float((before - now).norm()) > FAR * float(before.norm())


def one_by_one(samples: Any) -> list[Any]:
    """Return inputs as a list of inputs of one sample each."""
    tensors = tensors_in(samples)
    count = len(tensors[0]) if tensors and tensors[0].dim() else 0
    return [map_tensors(partial(one_of, number), samples) for number in range(count)]


def one_of(number: int, part: Tensor) -> Tensor:
    """Return one sample of a batch, as a batch."""
    return part[number : number + 1]


def first_samples(samples: Any, count: int) -> Any:
    """Return the first of some inputs."""
    return map_tensors(lambda part: part[:count], samples)


def float_outputs(network: nn.Module, inputs: Any) -> list[Tensor]:
    """Return the float tensors that a network returns."""
    with undisturbed(network):
        return [one for one in tensors_in(call_with(network, inputs)) if one.is_floating_point()]
