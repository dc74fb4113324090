"""A Llama of 0.23 M parameters trained on made-up dreams (mc9625/ai-dreamer); no text of its kind is here, so it writes some."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado import Data, Task, Tokens
from cortado.nets.llama import dreams_llama
from cortado.task.perplexity import perplexity

LENGTH, COUNTS = 96, (64, 64, 128)


def dreams(network: nn.Module, count: int) -> Tensor:
    """Return texts int64 (count, 96), drawn from the network at temperature 1."""
    generator, pieces = torch.Generator().manual_seed(0), torch.ones(count, 1, dtype=torch.int64)
    with torch.no_grad():
        while pieces.shape[1] < LENGTH:
            chances = network(pieces)[:, -1].softmax(1)
            pieces = torch.cat([pieces, torch.multinomial(chances, 1, generator=generator)], 1)
    return pieces


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of the next piece, in nats."""
    return functional.cross_entropy(outputs[:, :-1].transpose(1, 2), targets[:, 1:])


def job():
    """Return network and task."""
    network = dreams_llama(weights=True).eval()
    texts = dreams(network, sum(COUNTS)).split(COUNTS)
    parts = [Data(text, text) for text in texts]
    return network, Task(*parts, loss=loss, metric=perplexity(), outputs=Tokens(), batch=16, name="dreams")
