"""Routing: a feed-forward layer's neurons in groups that are active together, and a router that predicts their energy."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.methods.conditional.clusters import balanced_clusters
from cortado.parts.blocks.experts import ACTIVATIONS, Experts, Pair, Router

FIT_ROWS, FIT_LR = 512, 2e-3
PATTERNS = 2048
"""Rows of which neurons are compared."""
LEAST = 1e-8
"""Energies are compared by logarithms."""


@dataclass(frozen=True)
class Computed:
    """What a feed-forward layer computes for calibration rows: `given` (rows, inputs), `inside` (rows, neurons)."""

    given: Tensor
    inside: Tensor
    outer: Tensor

    @classmethod
    def of(cls, given: Tensor, first: Pair, second: Pair, activation: str) -> "Computed":
        """Return it for rows (rows, inputs)."""
        return cls(given, ACTIVATIONS[activation](functional.linear(given, first.weight, first.bias)), second.weight)

    def outputs(self, bias: Tensor | None) -> Tensor:
        """Return what the layer gives, (rows, outputs)."""
        return functional.linear(self.inside, self.outer, bias)

    def order(self, experts: int, generator: torch.Generator) -> Tensor:
        """Return the neurons, those of one group side by side, by how they differ together from their mean."""
        strength = self.inside[:PATTERNS].abs() * self.outer.norm(dim=0)
        groups = balanced_clusters((strength - strength.mean(0)).T, experts, generator)
        return groups.argsort(stable=True)

    def means_where_dropped(self, chosen: Tensor) -> Tensor:
        """Return what each group adds on average in the rows that do not choose it (rows, experts), (experts, outputs)."""
        dropped = (~chosen).to(self.inside)
        shares = (dropped / dropped.sum(0).clamp_min(1)).split(1, 1)
        groups = zip(shares, self.inside.chunk(len(shares), 1), self.outer.chunk(len(shares), 1), strict=True)
        return torch.stack([(share * inside).sum(0) @ outer.T for share, inside, outer in groups])

    def energies(self, experts: int) -> Tensor:
        """Return the square of what each group adds beyond its mean, (rows, experts)."""
        groups = zip(self.inside.chunk(experts, 1), self.outer.chunk(experts, 1), strict=True)
        return torch.stack([((one - one.mean(0)) @ outer.T).square().sum(1) for one, outer in groups], 1)


def fit_router(router: Router, given: Tensor, energies: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Train a router to predict the logarithm of energies (rows, experts); return what it chooses.

    The scores keep the differences between experts: they share one mean and one deviation over all.
    """
    wanted = energies.clamp_min(LEAST).log()
    wanted = (wanted - wanted.mean()) / wanted.std().clamp_min(LEAST)
    optimizer = torch.optim.AdamW([*router.hidden.parameters(), *router.scores.parameters()], FIT_LR)
    for _ in range(steps):
        rows = torch.randint(len(given), (min(FIT_ROWS, len(given)),), generator=generator)
        with torch.enable_grad():
            error = functional.mse_loss(router.scores(torch.relu(router.hidden(given[rows]))), wanted[rows])
            optimizer.zero_grad()
            error.backward()
        optimizer.step()
    with torch.no_grad():
        return router.eval()(given).chosen


def draw_afresh(block: Experts) -> None:
    """Draw a fresh router, which chooses by chance, for a training from the start; scores and noise begin at 0."""
    router = block.expert_router
    for layer in (router.scores, *([router.noise] if router.noise is not None else [])):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
