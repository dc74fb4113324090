"""A network of convolutions on pictures and a decoder of words, each with its task."""

import pytest
import torch
from torch import nn

from cortado.nets.llama import llama
from cortado.task.outputs.tokens import Tokens
from cortado.tasks.text import next_token_loss
from tests.methods.seen import task_of


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3, stride=2, groups=4), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 5),
    ).eval()  # fmt: skip
    # Neighbours are alike, as in pictures.
    pixels = nn.functional.interpolate(torch.randn(1200, 3, 4, 4), (8, 8), mode="bilinear") + 0.1 * torch.randn(
        1200, 3, 8, 8
    )
    return network, task_of(pixels, torch.randint(0, 5, (1200,)))


@pytest.fixture
def words():
    """A decoder with more certain answers than fresh weights give, so that errors matter."""
    torch.manual_seed(0)
    network = llama(words=40, width=32, layers=2, heads=4, shared=2, inner=48, positions=16).eval()
    with torch.no_grad():
        network.embedding.weight.mul_(0.6)
    tokens = torch.randint(0, 40, (320, 12))
    return network, task_of(tokens, tokens, outputs=Tokens(), loss=next_token_loss)
