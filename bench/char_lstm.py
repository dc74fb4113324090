"""The published character LSTM (2 x 128 over 65 characters) and its text, as network and task for benches.

Weights and text as the benchmark data hold them. The text is what the network was trained on, so that held-out windows
are other places of it, not places that it has never seen.
"""

import lzma
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.task.task import Data, Metric, Task

LETTERS, WIDTH, WINDOW = 65, 128, 64
PARTS = {"train": 512, "validation": 512, "test": 512}
"""Windows of each part."""


class CharLSTM(nn.Module):
    """Characters int64 (N, T) to scores of the next one (N, T, 65)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, LETTERS)

    def forward(self, letters: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(letters))[0])


def folder() -> Path:
    return Path(os.environ["CORTADO_DATA"])


def char_lstm() -> nn.Module:
    """The network with its published weights."""
    network = CharLSTM()
    with np.load(folder() / "weights" / "shakespeare_charlstm.npz") as stored:
        network.load_state_dict({name: torch.from_numpy(stored[name]) for name in network.state_dict()})
    return network.eval()


def letters() -> Tensor:
    """The whole text as numbers of characters, int64."""
    with np.load(folder() / "weights" / "shakespeare_charlstm.npz") as stored:
        known = "".join(map(str, stored["chars"]))
    with lzma.open(folder() / "text" / "tinyshakespeare.txt.xz", "rt", encoding="utf8", newline="\n") as file:
        text = file.read()
    numbers = {letter: number for number, letter in enumerate(known)}
    return torch.tensor([numbers[letter] for letter in text])


def right(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of next characters that each window has right."""
    return (outputs.argmax(-1) == targets).float().mean(1)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean nats a character."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def task(seed: int = 0) -> Task:
    """Windows of 64 characters that do not touch, drawn over the whole text."""
    text = letters()
    starts = torch.randperm((len(text) - 1) // (WINDOW + 1), generator=torch.Generator().manual_seed(seed))
    places = (starts * (WINDOW + 1))[:, None] + torch.arange(WINDOW + 1)
    windows, parts, at = text[places[: sum(PARTS.values())]], {}, 0
    for part, count in PARTS.items():
        parts[part] = Data(windows[at : at + count, :-1], windows[at : at + count, 1:])
        at += count
    return Task(**parts, loss=loss, metric=Metric("next characters", "%", right), seed=seed, name="shakespeare")
