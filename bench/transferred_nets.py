"""Transferred nets: one VGG-like network for CIFAR-10, with filters made from fewer, and thin plain networks beside it.

All are trained from scratch on the same 35,000 pictures, varied in the same way and in the same order, and scored on 10,000
that neither they nor any choice has seen (bench/held_out.py).
"""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.held_out import task
from bench.taught import Run, run_of
from cortado.engine.recipe import read_recipe
from cortado.network.view import View
from cortado.training.loop import train
from cortado.training.training import Training

EPOCHS = 15.0
WIDTHS = (32, 32, 64, 64, 128, 128)
POOLED = (0, 2, 4)
NOT_FIRST = "where='not convs.0'"
NETS: dict[str, tuple[float, str]] = {
    "plain": (1.0, ""),
    "rotate, rolled (p4)": (1.0, "transfer/rotate start=fresh"),
    "thin, half as wide": (0.5, ""),
    "negate": (1.0, f"transfer/negate start=fresh {NOT_FIRST}"),
    "repeat": (1.0, f"transfer/repeat start=fresh {NOT_FIRST}"),
    "thin, 0.71 as wide": (0.71, ""),
    "rotate": (1.0, f"transfer/rotate roll=false start=fresh {NOT_FIRST}"),
    "translate": (1.0, f"transfer/translate start=fresh {NOT_FIRST}"),
}
"""Widths and recipe of each, in the order in which they are trained."""


class Vgg(nn.Module):
    """3 x 3 convolutions with batch norms, max pools behind those at the places `pooled`, the mean over places, a linear layer.

    Pictures (N, `channels`, H, W) to logits (N, 10).
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, channels: int = 3, pooled: Sequence[int] = POOLED) -> None:
        super().__init__()
        self.pooled = tuple(pooled)
        sizes = list(zip((channels, *widths[:-1]), widths, strict=True))
        self.convs = nn.ModuleList(nn.Conv2d(one, two, 3, padding=1, bias=False) for one, two in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.pool = nn.MaxPool2d(2)
        self.linear = nn.Linear(widths[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        activation = images
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            activation = torch.relu(norm(conv(activation)))
            if place in self.pooled:
                activation = self.pool(activation)
        return self.linear(activation.mean((2, 3)))


def how() -> Training:
    """Return how all train."""
    return Training(epochs=EPOCHS, lr=0.1, optimizer="sgd", decay=5e-4, warmup=0.05, batch=128, precision="bfloat16")


def untrained(name: str, seed: int, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """Return a network with the fresh weights of its seed."""
    share, recipe = NETS[name]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network: nn.Module = Vgg([round(share * width) for width in widths])
    if recipe:
        view = View(network, network, task().example)
        read_recipe(recipe).stages[0].apply(view, task())
        network = view.network
    return network


def trained_run(name: str, seed: int) -> Run:
    """Return the scores of the trained network; kept."""

    def learned() -> nn.Module:
        network = untrained(name, seed)
        train(network, task(), how(), seed=seed, label=f"{name}, seed {seed}")
        return network.eval()

    return run_of("transferred", [name, seed, EPOCHS], task(), learned)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number in map(int, sys.argv[1:] or ["0", "1"]):
        for one in NETS:
            trained_run(one, number)
