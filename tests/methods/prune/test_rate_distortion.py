"""prune/rate_distortion keeps the zeros of an earlier stage."""

import torch
from torch import nn

import cortado


def test_pruned_weights_stay_pruned_and_no_note_says_otherwise():
    inputs, labels = torch.randn(90, 6), torch.randint(3, (90,))
    parts = [(inputs[at : at + 30], labels[at : at + 30]) for at in (0, 30, 60)]
    task = cortado.Task(*parts, batch=10)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    recipe = [
        "prune/weights keep=0.25",
        {"prune/rate_distortion": {"epochs": 4, "lr": 0.1, "finish": 1, "strength": 0.0}},
    ]
    small, report = cortado.compress(net, task, recipe)
    assert 0 < int(small[0].weight.count_nonzero()) <= 24 and int(small[2].weight.count_nonzero()) <= 12
    assert not any("give" in note for note in report.stages[1].notes)
