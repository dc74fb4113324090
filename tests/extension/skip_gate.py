"""A user's block and its method: a gate that decides for each sample whether a residual block runs."""

from dataclasses import dataclass

import torch
from torch import nn

from cortado import Method, knob
from cortado.methods.finetune import Finetune
from cortado.parts.blocks.block import ORIGINAL, Block
from cortado.parts.blocks.rows import ChooseRows
from cortado.training.loop import Training


class Gate(Block):
    """Runs the block it keeps where a linear map of the pooled channels is above 0, and passes its input on elsewhere."""

    facts = ("channels",)
    arrays = {"inner": ORIGINAL}

    def __init__(self, inner, channels):
        super().__init__()
        self.inner, self.channels = inner, channels
        self.decision, self.choose = nn.Linear(channels, 1), ChooseRows()

    def forward(self, values):
        score = self.decision(values.flatten(2).mean(2)) if values.dim() > 2 else self.decision(values)
        if self.training:
            # Straight through: 0 or 1 forward, the gradient of the sigmoid backward.
            soft = score.sigmoid()
            opened = ((score > 0).to(soft) - soft.detach() + soft).view(-1, *[1] * (values.dim() - 1))
            return opened * self.inner(values) + (1 - opened) * values
        return self.choose(score[:, 0] > 0, self.inner(values), values)


@dataclass(frozen=True)
class SkipBlock(Method):
    """Put a gate around a residual block and train it with the network."""

    lossy = True
    trains = True

    at: str = knob("", help="path of the block")
    epochs: float = knob(1.0, low=0.0, help="passes over the training data")
    lr: float = knob(1e-2, low=0.0, help="learning rate")

    def apply(self, view, task):
        inner = view.network.get_submodule(self.at)
        channels = next(call.inputs[0][1] for call in view.graph.calls if call.path == self.at)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(task.seed)
            view.wrap(self.at, Gate(inner, channels))
        Finetune(Training(epochs=self.epochs, lr=self.lr)).apply(view, task)
