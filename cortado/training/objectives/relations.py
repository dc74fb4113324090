"""relations: how a transformer's queries, keys and values relate the tokens of a text."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadNetwork, BadValue
from cortado.knobs.knob import knob
from cortado.training.objectives.layer_pairs import LayerPair, LayerPairs, other_size
from cortado.training.objectives.objective import Terms, TrainingStep

ATTENTION, OWN = "attention", "own"
LAYERS = 3


@dataclass(frozen=True)
class Relations(LayerPairs):
    """KL between softmaxes over tokens of scaled products of queries, keys and values.  Wang et al., 2020 (MiniLM).

    `at` names the three layers that give queries, keys and values, (N, T, C) each, of one block, the last one in the paper;
    several blocks are named three by three. `products: attention` compares queries with keys, the attention, and values with
    values; `own` queries, keys and values each with themselves (MiniLM v2, 2021). C is divided into `heads`, the same
    number for both networks, so that widths may differ. Summed over keys, averaged over samples, heads and queries, added over
    relations, averaged over blocks. Padding counts neither as query nor as key. `causal`: a token sees those before it.
    """

    heads: int = knob(12, low=1, help="heads of queries, keys and values")
    products: str = knob(ATTENTION, one_of=(ATTENTION, OWN), help="which products are compared")
    causal: bool = knob(False, help="tokens see only those before them")

    def terms(self, step: TrainingStep) -> Terms:
        pairs = self.both(step)
        if len(pairs) % LAYERS:
            raise BadValue(
                f"objectives/relations: at must name queries, keys and values of each block, got {len(pairs)} layers. "
                "Write at: 'layer.query, layer.key, layer.value'."
            )
        blocks = [pairs[start : start + LAYERS] for start in range(0, len(pairs), LAYERS)]
        names = ("attention", "values") if self.products == ATTENTION else ("queries", "keys", "values")
        found = [self.of_block(step, block) for block in blocks]
        return {
            f"relations {name}": torch.stack([one[number] for one in found]).mean() for number, name in enumerate(names)
        }

    def of_block(self, step: TrainingStep, block: list[LayerPair]) -> list[Tensor]:
        """Return the divergence of each relation of a block's queries, keys and values."""
        mine, wanted = ([self.in_heads(step, pair, one) for pair, one in zip(block, given, strict=True)] for given in (
            [pair.mine for pair in block], [pair.wanted for pair in block]
        ))  # fmt: skip
        which = ((0, 1), (2, 2)) if self.products == ATTENTION else ((0, 0), (1, 1), (2, 2))
        return [
            relation_divergence((mine[a], mine[b]), (wanted[a], wanted[b]), block[0].counted, self.causal)
            for a, b in which
        ]

    def in_heads(self, step: TrainingStep, pair: LayerPair, values: Tensor) -> Tensor:
        """Return (N, heads, T, C / heads) of (N, T, C)."""
        if values.dim() != 3 or pair.mine.shape[:2] != pair.wanted.shape[:2]:
            raise other_size(step.label, pair, pair.mine, pair.wanted)
        if values.shape[2] % self.heads:
            raise BadNetwork(
                f"{step.label}: {pair.at} or the teacher's {pair.of} has {values.shape[2]} channels, no multiple of "
                f"{self.heads} heads. Set heads of relations."
            )
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)


def relation_divergence(
    mine: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], counted: Tensor | None, causal: bool = False
) -> Tensor:
    """Return the mean over samples, heads and queries of KL(wanted || mine) of softmaxes over keys.

    Each has queries and keys, (N, heads, T, C); products are divided by the root of C. `counted`: (N, T), None for all.
    """
    tokens = mine[0].shape[2]
    seen = mine[0].new_ones((1, 1, 1, tokens), dtype=torch.bool) if counted is None else counted[:, None, None]
    if causal:
        seen = seen & torch.ones(tokens, tokens, dtype=torch.bool, device=seen.device).tril()
    logs, wanted_logs = (
        (one @ other.transpose(2, 3) / one.shape[3] ** 0.5)
        .masked_fill(~seen, torch.finfo(one.dtype).min / 4)
        .log_softmax(3)
        for one, other in (mine, wanted)
    )
    each = (wanted_logs.exp() * (wanted_logs - logs)).sum(3)
    if counted is None:
        return each.mean()
    weights = counted[:, None].to(each.dtype).expand_as(each)
    return (each * weights).sum() / weights.sum().clamp(min=1)
