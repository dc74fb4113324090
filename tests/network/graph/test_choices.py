"""Choices: which layers only chosen rows need, where answers follow each other and where some values are needed by nobody."""

import pytest
import torch
from torch import nn

from cortado.methods.conditional.thresholds import stopping_costs
from cortado.nets.msdnet import msdnet
from cortado.network.graph.choices import choices_in
from cortado.network.graph.trace import trace
from cortado.network.profile.answers import multiply_adds_so_far
from cortado.network.view import View
from cortado.parts.blocks.rows import FirstSure


class Line(nn.Module):
    """Answers after each of so many layers, and a layer that nobody reads."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(answers))
        self.heads = nn.ModuleList(nn.Linear(6, 3) for _ in range(answers))
        self.idle = nn.Linear(6, 6)
        self.choose = FirstSure(answers)

    def forward(self, inputs):
        answers = []
        for layer, head in zip(self.layers, self.heads, strict=True):
            inputs = torch.relu(layer(inputs))
            answers.append(head(inputs))
        self.idle(inputs)
        return self.choose(*answers)


@pytest.mark.parametrize("answers", [2, 3, 5])
def test_all_that_follows_an_answer_is_inside_its_choice(answers):
    """Whoever leaves at the first answer needs one layer and one head, however many answers follow."""
    network = Line(answers)
    names = {id(module): path for path, module in network.named_modules()}
    inside = {
        names[id(one.module)]: {names[key] for key in one.inside}
        for one in choices_in(trace(network, torch.ones(2, 6)))
    }
    for place in range(answers - 1):
        found = {path for path in inside[f"choose.choices.{place}"] if path.startswith(("layers", "heads"))}
        later = range(place + 1, answers)
        assert found == {f"layers.{number}" for number in later} | {f"heads.{number}" for number in later}


def test_two_counts_of_what_an_answer_costs_agree():
    """One leaves out what is inside choices, the other follows each answer back to the inputs."""
    network, example = msdnet(exits=4, even=True, width=4, growth=4, head=8).eval(), torch.ones(2, 3, 32, 32)
    found = stopping_costs(View(network, network, example), [network.choose])
    assert found[:-1] == list(multiply_adds_so_far(network, example)["choose"][:-1])
