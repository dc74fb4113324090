"""The target share: its value by hand, what it needs, and a training that reaches it."""

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork, BadValue
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.parts.blocks.gate import Gate
from cortado.training.objectives.objective import TrainingStep
from cortado.training.objectives.open_share import OpenShare
from tests.laws.tiny_nets import BY_NAME

TINY = BY_NAME["attention"]


def step(shares: dict[str, list[float]]) -> TrainingStep:
    """A batch for which gates answered so."""
    taps = {f"{path}.gate_opens": torch.tensor(values, requires_grad=True) for path, values in shares.items()}
    return TrainingStep(None, None, None, taps, (), 0.0, {}, None, None)


def test_each_gate_is_held_to_the_target_by_itself():
    batch = step({"a": [1.0, 1, 0, 0], "b": [1.0, 0, 0, 0]})
    terms = OpenShare(target=0.75, at="a, b").terms(batch)
    assert terms["open_share"].item() == pytest.approx((0.25**2 + 0.5**2) / 2)
    assert float(batch.figures["share of open gates"]) == pytest.approx(0.375)
    terms["open_share"].backward()
    # The derivative of ((mean of 4) - 0.75)^2 / 2 by each answer.
    assert torch.allclose(batch.taps["b.gate_opens"].grad, torch.full((4,), 2 * (0.25 - 0.75) / 4 / 2))


def gated_view() -> View:
    network = TINY.make()
    view = View(network, TINY.make(), TINY.example)
    torch.manual_seed(0)
    for path in ("blocks.0", "blocks.1"):
        gate = Gate(network.get_submodule(path), 8, 4, True)
        gate.gate_opens.prepare(torch.randn(64, 5, 8), 0.9)
        view.wrap(path, gate)
    return view


@pytest.mark.parametrize("target", [0.25, 0.75])
def test_training_reaches_the_target(target):
    view = gated_view()
    objectives = [{"open_share": {"target": target, "weight": 50.0}}]
    Finetune(epochs=20, lr=0.05, objectives=objectives, teacher="original").apply(view, TINY.task())
    assert view.curves["share of open gates"][-1] == pytest.approx(target, abs=0.12)


def test_a_network_without_gates_is_refused():
    view = View(TINY.make(), TINY.make(), TINY.example)
    with pytest.raises(BadNetwork, match="open_share: there is no Gate in the network. Put conditional/gates before"):
        Finetune(objectives=["task", "open_share"]).apply(view, TINY.task())


def test_a_gate_that_is_not_there_is_refused():
    with pytest.raises(BadNetwork, match=r"no Gate at 'blocks.7'. It has them at blocks.0, blocks.1"):
        objectives = ["task", OpenShare(at="blocks.7")]
        Finetune(objectives=objectives).apply(gated_view(), TINY.task())


def test_a_share_out_of_range_is_refused():
    with pytest.raises(BadValue, match="open_share: target must .* got 1.5"):
        OpenShare(target=1.5)


def test_gates_given_by_path_are_kept():
    view = gated_view()
    bound = OpenShare(at="blocks.1").on(view, view.weights(), TINY.task())
    assert bound.taps().network == ("blocks.1.gate_opens",)
    assert isinstance(view.network.get_submodule("blocks.1.gate_opens"), nn.Module)
