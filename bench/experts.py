"""experts: MiniLM's feed-forward layers as experts against static pruning of the same share, both tuned alike, on STS-B.

Six layers of 1,536 inner neurons in 16 groups; each token computes 12, 8 or 4 of them, or the layers keep as many neurons
for all tokens (prune/channels). Both are then tuned for the same number of steps on sentences of STS-B's training part,
on the cosine with the published network's embedding; labels are not used. Spearman's rank correlation with what people say
on the 1,379 test pairs; intervals by resampling pairs, the same for both. MiniLM wants its wheel (bench/minilm.py).
"""

import base64
import time
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.kept import kept
from bench.minilm import PAD, WIDTH, SentenceBlock, alike, minilm, pairs, rank_correlation, trimmed
from bench.result import PIECES, row
from cortado.methods.conditional.experts import ConditionalExperts
from cortado.methods.learn import learn
from cortado.methods.method import Method
from cortado.methods.prune.channels import PruneChannels
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Task
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training

EXPERTS, SHARES = 16, (0.75, 0.5, 0.25)
FEED = "blocks.*.feed.*"
SENTENCES, LONGEST = 4000, 32
"""For training: so many of the training part's, of so many tokens at most."""
CALIBRATION = 512
HOW = Training(epochs=1.0, lr=1e-4, batch=32)
DRAWS = 2000


class Apart(nn.Module):
    """A block of MiniLM whose feed-forward layer is a module of its own, with the same weights."""

    def __init__(self, block: SentenceBlock) -> None:
        super().__init__()
        self.attention = Attention(block)
        self.feed = nn.Sequential(block.inner, nn.GELU(), block.outer)
        self.norm = block.last_norm

    def forward(self, activation: Tensor, bias: Tensor) -> Tensor:
        activation = self.attention(activation, bias)
        return self.norm(activation + self.feed(activation))


class Attention(nn.Module):
    """A block of MiniLM up to its first norm."""

    def __init__(self, block: SentenceBlock) -> None:
        super().__init__()
        self.query, self.key, self.value = block.query, block.key, block.value
        self.leave, self.norm = block.leave, block.first_norm

    def forward(self, activation: Tensor, bias: Tensor) -> Tensor:
        heads = [one(activation).unflatten(-1, (12, -1)).transpose(1, 2) for one in (self.query, self.key, self.value)]
        mixed = functional.scaled_dot_product_attention(*heads, attn_mask=bias).transpose(1, 2).flatten(2)
        return self.norm(activation + self.leave(mixed))


def network() -> nn.Module:
    """Return MiniLM with feed-forward layers that can be taken out."""
    made = minilm()
    made.blocks = nn.ModuleList(Apart(block) for block in made.blocks)  # type: ignore[union-attr, arg-type]
    return made.eval()


def away(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - cosine, the mean."""
    return 1 - functional.cosine_similarity(outputs, targets).mean()


@cache
def sentences() -> Task:
    """Return single sentences with their published embeddings; those for calibration stand by length, to be padded little."""
    original = minilm()

    def data(part: str, count: int) -> Data:
        tokens = pairs(part)[0].flatten(0, 1)
        tokens = tokens[(tokens != PAD).sum(1) <= LONGEST]
        tokens = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:count]]
        with torch.no_grad():
            targets = torch.cat([original(trimmed(some)) for some in tokens.split(64)])
        return Data(tokens, targets, trimmed)

    train = data("train", SENTENCES)
    order = (train.inputs[:CALIBRATION] != PAD).sum(1).argsort()
    calibration = Data(train.inputs[order], train.targets[order], trimmed)
    return Task(
        train, data("dev", 256), data("test", 256), loss=away, metric=Metric("cosine with the plain embedding", "%", alike),
        calibration=calibration, name="stsb", outputs=Numbers(), batch=32,
    )  # fmt: skip


def cosines(made: nn.Module, part: str) -> Tensor:
    """Return the cosine of each pair of STS-B's part, (pairs,)."""
    tokens, _ = pairs(part)
    flat = tokens.flatten(0, 1)
    order = (flat != PAD).sum(1).argsort()
    found = torch.empty(len(flat), WIDTH)
    with torch.no_grad():
        for some in order.split(64):
            found[some] = made(trimmed(flat[some]))
    both = found.view(-1, 2, WIDTH)
    return (both[:, 0] * both[:, 1]).sum(1)


def experts_of(share: float) -> Method:
    """Return the method that makes and tunes experts."""
    return ConditionalExperts(HOW, experts=EXPERTS, k=round(share * EXPERTS), hard=1.0, soft=0.0)


def pruned(view: View, share: float) -> None:
    """Prune neurons of the feed-forward layers for all tokens, and tune the rest as experts are."""
    task = sentences()
    PruneChannels(share, "taylor", multiple=1, where=FEED).apply(view, task)
    learn(view, task, HOW, (TaskLoss(),), "original", "*", "static")


def made(way: str, share: float) -> nn.Module:
    """Return the tuned network of a way and a share."""
    view = View(network(), network(), sentences().example)
    if way == "experts":
        experts_of(share).apply(view, sentences())
    elif way == "static":
        pruned(view, share)
    return view.network.eval()


def run_of(way: str, share: float) -> dict[str, Any]:
    """Return the cosines of the test pairs, multiply-adds of an average sentence, and minutes of CPU; kept."""

    def measured() -> dict[str, Any]:
        start = time.process_time()
        tuned = made(way, share)
        minutes = (time.process_time() - start) / 60
        found = cosines(tuned, "test")
        some = sentences().validation.inputs[:64]
        cost = profile(tuned, trimmed(some), trimmed(some)).expected_multiply_adds().value
        print(way, share, rank_correlation(found, pairs("test")[1]), cost, minutes, flush=True)
        body = base64.b85encode(found.numpy().astype("<f4").tobytes()).decode()
        return {"way": way, "share": share, "cosines": body, "multiply_adds": cost, "minutes": round(minutes, 2)}

    settings = [way, share, EXPERTS, SENTENCES, LONGEST, HOW.epochs, HOW.lr, HOW.batch]
    return kept("experts", settings, measured, PIECES)


def cosines_of(run: dict[str, Any]) -> Tensor:
    """Return the kept cosines."""
    return torch.from_numpy(np.frombuffer(base64.b85decode(run["cosines"]), "<f4").copy())


def difference(one: Tensor, other: Tensor, said: Tensor) -> tuple[float, float, float]:
    """Return how far the first is ahead in rank correlation (x 100), and the ends of the 95 % interval over pairs."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(DRAWS):
        drawn = torch.randint(len(said), (len(said),), generator=generator)
        found.append(100 * (rank_correlation(one[drawn], said[drawn]) - rank_correlation(other[drawn], said[drawn])))
    low, high = np.quantile(found, (0.025, 0.975))
    return 100 * (rank_correlation(one, said) - rank_correlation(other, said)), float(low), float(high)


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the scores of all, and what experts are ahead of static pruning."""
    torch.set_num_threads(1)
    said = pairs("test")[1]
    plain = run_of("plain", 1.0)
    rows = [score_row("as published", plain, said)]
    won = []
    for share in SHARES:
        one, other = run_of("experts", share), run_of("static", share)
        rows += [
            score_row(f"experts, {share:.0%} of the neurons", one, said),
            score_row(f"static, {share:.0%}", other, said),
        ]
        ahead, low, high = difference(cosines_of(one), cosines_of(other), said)
        won.append(low)
        rows.append(row(f"experts over static at {share:.0%}", ahead, "points of Spearman", interval=[low, high]))
    best = max(won)
    rows.append(row("experts over static at the best share, lower end of the interval", best, "points", 0.0, "higher"))
    return rows


def score_row(what: str, found: dict[str, Any], said: Tensor) -> dict[str, Any]:
    """Return the row of a run."""
    score = 100 * rank_correlation(cosines_of(found), said)
    return row(what, score, "Spearman x 100", multiply_adds=found["multiply_adds"], minutes=found["minutes"])
