"""Statistics are taken once for all trials of a search that start from the same network."""

import copy

import torch
from torch import nn

from cortado.methods import observed as room
from cortado.methods.observed import upper_factor
from cortado.methods.quantize.rate_distortion import QuantizeRateDistortion
from cortado.network.view import View
from cortado.planner.sensitivity.remembering import RememberingTask
from cortado.task.task import Data, Task


def task():
    inputs = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    return Task(*(Data(part, torch.zeros(20, dtype=torch.long)) for part in inputs.split(20)))


def test_a_search_observes_a_network_once(monkeypatch):
    calls, real = [], room.one_pass
    monkeypatch.setattr(room, "one_pass", lambda *given: calls.append(1) or real(*given))
    torch.manual_seed(0)
    original, remembering, plain = (
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval(),
        RememberingTask.of(task()),
        task(),
    )
    other = copy.deepcopy(original)
    with torch.no_grad():
        other[0].weight[0, 0] += 1

    def made(network, given, **knobs):
        view = View(copy.deepcopy(network), network, given.example)
        QuantizeRateDistortion(images=16, slopes=8, **knobs).apply(view, given)
        return view.network

    first, second = made(original, remembering, bits=2.0), made(original, remembering, bits=2.0)
    made(original, remembering, bits=4.0)
    assert len(calls) == 1
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    alone = made(original, plain, bits=2.0)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), alone.state_dict().values(), strict=True))
    made(other, remembering)
    made(original, remembering, where="0")
    assert len(calls) == 4


def test_factors_leave_the_moments_as_they_are():
    rows = torch.randn(3, 50, 5, generator=torch.Generator().manual_seed(0))
    gram = rows.mT @ rows / 50
    before = gram.clone()
    upper = upper_factor(gram, 0.01)
    assert torch.equal(gram, before)
    damped = gram + 0.01 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(5)
    assert torch.allclose(upper.mT @ upper, torch.linalg.inv(damped), atol=1e-4)
