"""Experts: stands in a feed-forward layer's place; of its inner neurons, each row computes the groups that a router picks."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.parts.blocks.block import INNER, ORIGINAL, Block
from cortado.parts.blocks.exit import path_mark
from cortado.parts.blocks.rows import ChooseRows
from cortado.parts.part import Arrays


def tanh_gelu(values: Tensor) -> Tensor:
    """Return the approximation of GELU by a tanh."""
    return functional.gelu(values, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "gelu": functional.gelu, "tanh gelu": tanh_gelu, "silu": functional.silu,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "hardtanh": functional.relu6,
}  # fmt: skip
"""What may stand between the two linear layers; a file has the place in this list."""
WEIGHTINGS = ("even", "softmax")
"""Chosen experts are summed as they are, or weighted by the softmax of their scores."""


class Routing(NamedTuple):
    """Which experts each row computes (rows, experts) bool, their weights, and a smooth estimate of being chosen."""

    chosen: Tensor
    gates: Tensor
    load: Tensor


class Router(nn.Module):
    """Scores experts for each row by a small network, and picks the `chosen` best.

    With `noisy`, training adds normal noise of a learned width to the scores (Shazeer et al., 2017, section 2.1).
    """

    def __init__(self, inputs: int, width: int, experts: int, chosen: int, weighting: str, noisy: bool) -> None:
        super().__init__()
        self.chosen, self.weighting = chosen, weighting
        self.hidden, self.scores = nn.Linear(inputs, width), nn.Linear(width, experts)
        self.noise = nn.Linear(width, experts) if noisy else None

    def forward(self, rows: Tensor) -> Routing:
        """Return the routing of rows (rows, inputs)."""
        hidden = torch.relu(self.hidden(rows))
        quiet = self.scores(hidden)
        scores, spread = quiet, None
        if self.noise is not None and self.training:
            spread = functional.softplus(self.noise(hidden)) + 1e-2
            scores = quiet + torch.randn_like(quiet) * spread
        best = scores.topk(self.chosen, 1).indices
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
        return Routing(chosen, self.gates(scores, chosen), self.load(quiet, scores, chosen, spread))

    def gates(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """Return the weights of the experts; of a sum 1, with a gradient in training as if scores decided."""
        if self.weighting == "softmax":
            return scores.masked_fill(~chosen, -torch.inf).softmax(1)
        if not self.training:
            return torch.ones_like(scores)
        smooth = scores.sigmoid()
        return 1 + smooth - smooth.detach()

    def load(self, quiet: Tensor, scores: Tensor, chosen: Tensor, spread: Tensor | None) -> Tensor:
        """Return the probability that each expert is chosen if its noise is drawn again; without noise, whether it is."""
        if spread is None or self.chosen == scores.shape[1]:
            return chosen.to(scores)
        best = scores.topk(self.chosen + 1, 1).values.detach()
        # To be chosen, a score has to pass the best of the others: for one that is chosen, the first that is not.
        bar = torch.where(chosen, best[:, -1:], best[:, -2:-1])
        return torch.special.ndtr((quiet - bar) / spread)


class Pair(NamedTuple):
    """The weight and the bias of a linear layer."""

    weight: Tensor
    bias: Tensor | None


class Inside(NamedTuple):
    """What a feed-forward layer holds."""

    first: Pair
    second: Pair
    activation: str


class Expert(nn.Module):
    """A group of neurons, which adds to what the groups before it gave in the rows that chose it."""

    def __init__(self, neurons: slice, weighting: str) -> None:
        super().__init__()
        self.neurons, self.weighting = neurons, weighting
        self.choose = ChooseRows()

    def forward(
        self,
        rows: Tensor,
        total: Tensor,
        base: Tensor | None,
        chosen: Tensor,
        gates: Tensor,
        inside: Inside,
        mean: Tensor,
    ) -> Tensor:
        """Return (rows, outputs): `total`, and in chosen rows what the neurons give beyond the mean too.

        `base` (outputs,) is what all rows have so far, if that is the same.
        """
        mine, (first, second, activation) = self.neurons, inside
        bias = None if first.bias is None else first.bias[mine]
        hidden = ACTIVATIONS[activation](functional.linear(rows, first.weight[mine], bias))
        if self.weighting == "softmax":
            hidden = hidden * gates[:, None]
        weight = second.weight[:, mine]
        if base is None:
            added = total + functional.linear(hidden, weight, -mean)
        else:
            # What chosen rows need is not taken from what was spread over all rows.
            added = functional.linear(hidden, weight, base - mean)
        return self.choose(chosen, added, total)


class ExpertSum(nn.Module):
    """The sum over chosen experts, one after the other; a dropped one counts as its mean, `means` (experts, outputs)."""

    def __init__(self, experts: int, neurons: int, outputs: int, weighting: str) -> None:
        super().__init__()
        size = neurons // experts
        self.size, self.means = size, nn.Parameter(torch.zeros(experts, outputs))
        self.each = nn.ModuleList(Expert(slice(at * size, (at + 1) * size), weighting) for at in range(experts))

    def reset_parameters(self) -> None:
        """Let dropped experts count as nothing."""
        nn.init.zeros_(self.means)

    def forward(self, rows: Tensor, routing: Routing, inside: Inside) -> Tensor:
        """Return (rows, outputs) from rows (rows, inputs)."""
        first, second, activation = inside
        if self.training:
            # The same sum in two products: all are computed anyway.
            shares = (routing.chosen * routing.gates).repeat_interleave(self.size, 1)
            hidden = ACTIVATIONS[activation](functional.linear(rows, first.weight, first.bias)) * shares
            dropped = (~routing.chosen).to(rows) @ self.means
            return functional.linear(hidden, second.weight, second.bias) + dropped
        base = self.means.sum(0) if second.bias is None else self.means.sum(0) + second.bias
        total = base.expand(rows.shape[0], -1)
        for number, expert in enumerate(self.each):
            given = routing.chosen[:, number], routing.gates[:, number], inside, self.means[number]
            total = expert(rows, total, None if number else base, *given)
        return total


class Experts(Block):
    """Stands in the place of linear -> activation -> linear and keeps it inside; its inner neurons are `experts` groups.

    A router picks `chosen` of them for each row, an entry of all axes but the last. Shazeer et al., 2017; made of a trained
    layer, Zhang et al., 2022. Groups are neighbouring neurons of one size. `first` and `second` are the paths of the linear
    layers, which a file knows by checksums.
    """

    facts = ("first_place", "second_place", "act", "experts", "chosen", "width", "weighting", "noisy")
    arrays: ClassVar[dict[str, str]] = {INNER: ORIGINAL}

    def __init__(
        self, inner: nn.Module, first: str, second: str, activation: str, experts: int, chosen: int,
        width: int = 64, weighting: str = "even", noisy: bool = False,
    ) -> None:  # fmt: skip
        """Raises BadValue for sizes that do not fit the layer."""
        super().__init__()
        self.inner, self.first, self.second, self.activation = inner, first, second, activation
        self.first_place, self.second_place = path_mark(first), path_mark(second)
        neurons, inputs = self.pair(first).weight.shape
        if not 1 <= chosen <= experts <= neurons or neurons % experts or width < 1:
            raise BadValue(
                f"blocks/experts: {neurons} inner neurons do not make {experts} groups of one size of which a row computes "
                f"{chosen}, with a router of width {width}. Choose a number of experts that divides {neurons}."
            )
        self.act, self.experts, self.chosen, self.width = list(ACTIVATIONS).index(activation), experts, chosen, width
        self.weighting, self.noisy = WEIGHTINGS.index(weighting), noisy
        like = self.pair(second).weight
        self.expert_router = Router(inputs, width, experts, chosen, weighting, noisy).to(like.dtype)
        self.expert_chain = ExpertSum(experts, neurons, like.shape[0], weighting).to(like.dtype)

    def pair(self, path: str) -> Pair:
        """Return weight and bias of one of the linear layers."""
        layer = self.inner.get_submodule(path)
        return Pair(layer.weight, layer.bias)  # type: ignore[arg-type]

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Experts":
        inner, facts = parts[INNER], dict(spec)
        paths = {path_mark(path): path for path, _ in inner.named_modules() if path}
        places = facts.pop("first_place"), facts.pop("second_place")
        act, weighting = facts.pop("act"), facts.pop("weighting")
        if act >= len(ACTIVATIONS) or weighting >= len(WEIGHTINGS) or any(one not in paths for one in places):
            raise BadValue("blocks/experts: the layers that its experts are made of are not there.")
        how = {
            "activation": list(ACTIVATIONS)[act],
            "weighting": WEIGHTINGS[weighting],
            "noisy": bool(facts.pop("noisy")),
        }
        return cls(inner, paths[places[0]], paths[places[1]], **facts, **how)  # type: ignore[arg-type]

    def forward(self, values: Tensor) -> Tensor:
        """Return (..., outputs) from values (..., inputs)."""
        inside = Inside(self.pair(self.first), self.pair(self.second), self.activation)
        rows = values.reshape(-1, values.shape[-1])
        found = self.expert_chain(rows, self.expert_router(rows), inside)
        return found.reshape(*values.shape[:-1], found.shape[-1])
