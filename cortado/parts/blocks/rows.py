"""Rows: the one way in which a network's path depends on its input: for each row, one of two values."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cortado.errors import BadValue

RULES = ("top", "margin")
"""How sure an answer is: the largest probability, or how far it is above the second."""
NEVER = 2.0
"""A threshold that no confidence passes."""


class LastRows:
    """Which rows of the last batch computed what was chosen, (rows,) bool; None before the first batch."""

    rows: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> "LastRows":
        """Return one that has not run: a copy of a network has not either."""
        return LastRows()


class ChooseRows(nn.Module):
    """For each row, which is an entry of the first axis: `chosen` where the mask is true, else `otherwise`.

    PyTorch computes both for all rows and picks, so that gradients flow and every tool that traces can follow. In a
    runtime's file, what only `chosen` needs runs for the rows of the mask alone. It must compute each row by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ran = LastRows()

    def forward(self, mask: Tensor, chosen: Tensor, otherwise: Tensor) -> Tensor:
        """Return (rows, ...) from a mask (rows,) and two tensors of that shape."""
        if not torch.compiler.is_compiling():
            self.ran.rows = mask
        return torch.where(mask.reshape(-1, *[1] * (chosen.dim() - 1)), chosen, otherwise)


def chooses_rows(network: nn.Module) -> bool:
    """Return whether what a network computes depends on its input."""
    return any(isinstance(module, ChooseRows) for module in network.modules())


class FirstSure(nn.Module):
    """Return, for each sample, the first of several answers whose confidence is above its threshold, or else the last.

    `thresholds` (answers - 1,) are NEVER at first, which gives the last answer to all. Viola and Jones, 2001, and
    BranchyNet (Teerapittayanon et al., 2016), which leaves by the entropy.
    """

    def __init__(self, answers: int, rule: str = "top") -> None:
        """Raises BadValue for less than two answers, and for an unknown rule."""
        super().__init__()
        if answers < 2 or rule not in RULES:
            raise BadValue(
                f"blocks/rows: it takes two answers or more and a rule of {', '.join(RULES)}, got {answers} and {rule!r}."
            )
        self.rule = rule
        self.thresholds: Tensor
        self.register_buffer("thresholds", torch.full((answers - 1,), NEVER))
        self.choices = nn.ModuleList(ChooseRows() for _ in range(answers - 1))

    def forward(self, *answers: Tensor) -> Tensor:
        """Return (samples, classes, ...) logits from as many of the same shape as there are answers, earliest first."""
        found = answers[-1]
        for number in reversed(range(len(self.choices))):
            # Not "<=": a confidence that is no number has to go on.
            unsure = ~(confidence(answers[number], self.rule) > self.thresholds[number])
            found = self.choices[number](unsure, found, answers[number])
        return found

    def left_at(self) -> Tensor:
        """Return the place of the answer that each sample of the last batch got, (samples,)."""
        return left_at([choice.ran.rows for choice in self.choices])  # type: ignore[union-attr, misc]


def left_at(unsure: Sequence[Tensor]) -> Tensor:
    """Return how many answers in a row were unsure for each sample, (samples,), from a mask for each answer but the last."""
    return torch.stack(list(unsure)).long().cumprod(0).sum(0)


def confidence(logits: Tensor, rule: str) -> Tensor:
    """Return how sure logits (samples, classes, ...) are, (samples,) in 0..1; the mean over further axes."""
    probabilities = logits.softmax(1)
    if rule == "top":
        found = probabilities.amax(1)
    else:
        best = probabilities.topk(2, 1).values
        found = best[:, 0] - best[:, 1]
    return found.flatten(1).mean(1) if found.dim() > 1 else found
