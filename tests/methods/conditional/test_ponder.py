"""conditional/ponder lets places halt, by a price, in stages that it finds."""

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.methods.conditional.ponder import ConditionalPonder
from cortado.nets.resnet import CifarResNet
from cortado.network.profile.pondered import ponder_maps
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.blocks.ponder import Ponder, Score
from cortado.runtimes.export import export
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.training.objectives.ponder import PonderCost
from tests.laws.tiny_nets import BY_NAME
from tests.training.objectives.given import given_step


def net():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return CifarResNet(3, width=4).eval()


def task():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(60, 3, 8, 8, generator=generator)
    targets = (inputs.mean((1, 2, 3)) > 0).long()
    parts = [Data(inputs[a:b], targets[a:b]) for a, b in ((0, 32), (32, 48), (48, 60))]
    return Task(*parts, batch=16, device="cpu")


def applied(**knobs):
    view = View(net(), net(), task().example)
    ConditionalPonder(**{"epochs": 0.5} | knobs).apply(view, task())
    return view


@pytest.mark.parametrize("by", ["sample", "position"])
def test_a_higher_cost_makes_places_halt_sooner(by):
    passed = []
    for tau in (0.0, 3.0):
        maps = ponder_maps(applied(by=by, tau=tau, epochs=8.0, lr=0.03).network, task().test.inputs)
        passed.append(sum(float(one.float().mean()) for one in maps.values()))
    assert passed[1] < 0.85 * passed[0]


def test_all_stages_are_found_and_the_notes_say_how_many_blocks_are_passed():
    view = applied()
    assert [path for path, module in view.network.named_modules() if isinstance(module, Ponder)] == [
        "layer1",
        "layer2",
        "layer3",
    ]
    assert len(view.notes) == 3 and all("a sample passes" in note and "of 3 blocks" in note for note in view.notes)


def test_notes_maps_and_profile_say_the_same():
    view = applied(by="position", tau=1.0, epochs=4.0, lr=0.03)
    inputs = task().validation.inputs
    maps, rows = ponder_maps(view.network, inputs), profile(view.network, inputs, inputs)
    for number, (path, passed) in enumerate(maps.items()):
        assert passed.shape == (16, *{"layer1": (8, 8), "layer2": (4, 4), "layer3": (2, 2)}[path])
        assert f"passes {float(passed.float().mean()):.2f} of 3" in view.notes[number]
        shares = [rows.row(f"{path}.{block}.conv2").executed for block in (1, 2)]
        assert 1 + sum(shares) == pytest.approx(float(passed.float().mean()), abs=1e-5)


@pytest.mark.parametrize("by", ["sample", "position"])
def test_file_of_a_runtime_computes_the_same(by, tmp_path):
    pytest.importorskip("onnxruntime")
    network = applied(by=by).network
    torch.manual_seed(2)
    with torch.no_grad():
        for score in (module for module in network.modules() if isinstance(module, Score)):
            score.pooled.weight.normal_()
            score.pooled.bias.fill_(0.5)
    passed = ponder_maps(network, task().validation.inputs)
    assert any(len(one.unique()) > 1 for one in passed.values())
    assert export(network, task(), "onnxruntime", tmp_path / "out").difference < 1e-4


def test_positions_need_maps_and_stages_need_blocks():
    tokens, plain = BY_NAME["attention"], BY_NAME["residual"]
    for tiny, how in ((tokens, {"by": "position"}), (plain, {})):
        view = View(tiny.make(), tiny.make(), tiny.example)
        assert "it needs a stage" in ConditionalPonder(**how).unmet(view, tiny.task())
    view = View(tokens.make(), tokens.make(), tokens.example)
    assert not ConditionalPonder().unmet(view, tokens.task())


def test_cost_is_the_mean_over_places_summed_over_stages():
    one, other = torch.tensor([1.5, 2.5]), torch.full((2, 3, 3), 4.0)
    step = given_step(taps={"a.ponder_cost": one, "b.ponder_cost": other})
    assert float(PonderCost(at="a, b").terms(step)["ponder"]) == 6.0
    view = View(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)), torch.randn(2, 2))
    with pytest.raises(BadNetwork, match="no Ponder in the network. Put conditional/ponder before"):
        PonderCost().on(view, [], task())
    with pytest.raises(BadNetwork, match="no stage of the network halts"):
        ponder_maps(net(), task().example)
