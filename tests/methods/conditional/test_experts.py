"""conditional/experts groups neurons without changing outputs, routes by energy, and leaves what a runtime's file computes."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.methods.conditional.clusters import balanced_clusters
from cortado.methods.conditional.experts import ConditionalExperts
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.blocks.experts import Experts
from cortado.runtimes.export import export
from cortado.task.data import Data
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Task
from cortado.training.objectives.balance import Balance, variation
from tests.laws.tiny_nets import BY_NAME
from tests.training.objectives.given import given_step

TOKENS = (4, 6)


class Small(nn.Module):
    """Two feed-forward layers on tokens (N, 4, 6), each added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 16), nn.GELU(approximate="tanh"), nn.Linear(16, 6))
        self.second = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.first(tokens)
        return self.head((tokens + self.second(tokens)).mean(1))


@torch.no_grad()
def outputs(network):
    return network(task().test.inputs)


def small():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Small().eval()


def task():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(96, *TOKENS, generator=generator)
    with torch.no_grad():
        targets = small()(inputs)
    parts = [Data(inputs[a:b], targets[a:b]) for a, b in ((0, 48), (48, 72), (72, 96))]
    return Task(*parts, loss=functional.mse_loss, outputs=Numbers(), batch=16, device="cpu")


def applied(**knobs):
    view = View(small(), small(), task().example)
    ConditionalExperts(**{"experts": 4, "k": 2, "epochs": 0.0, "steps": 200, "width": 16} | knobs).apply(view, task())
    return view


def away(network):
    return float((outputs(network) - outputs(small())).square().mean())


def test_all_experts_give_the_outputs_of_before():
    torch.testing.assert_close(outputs(applied(k=4).network), outputs(small()))


def test_router_is_better_than_a_fresh_one_and_the_notes_say_how_good():
    shares = [
        [float(note.split("carry ")[1].split("%")[0]) for note in applied(steps=steps).notes] for steps in (0, 300)
    ]
    assert len(shares[0]) == 2 and all(after > before for before, after in zip(*shares, strict=True))


def test_means_of_what_is_dropped_bring_outputs_nearer():
    far = [away(applied(means=means).network) for means in (False, True)]
    assert far[1] < far[0]


def test_tuning_with_the_teacher_brings_outputs_nearer():
    far = [away(applied(epochs=epochs, lr=1e-2).network) for epochs in (0.0, 20.0)]
    assert far[1] < 0.9 * far[0]


def test_profile_counts_the_share_that_runs():
    view = applied()
    found = profile(view.network, task().example, task().test.inputs)
    each = [found.row(f"first.expert_chain.each.{number}") for number in range(4)]
    assert sum(one.executed for one in each) == pytest.approx(2.0) and len({one.executed for one in each}) > 1
    assert [one.multiply_adds for one in each] == [4 * 2 * 6 * 4] * 4


def test_file_of_a_runtime_computes_the_same(tmp_path):
    pytest.importorskip("onnxruntime")
    row = export(applied().network, task(), "onnxruntime", tmp_path / "out")
    assert row.difference < 1e-4 and "compaction" in row.paths


def test_balance_makes_a_router_use_its_experts_alike():
    router = applied(noisy=True, weighting="softmax").network.first.expert_router.train()
    with torch.no_grad():
        router.scores.bias.copy_(torch.tensor([4.0, 0.0, 0.0, 0.0]))
    rows, used = task().train.inputs.reshape(-1, 6), []
    optimizer = torch.optim.Adam(router.parameters(), 0.05)
    for _ in range(150):
        routing = router(rows)
        used.append(float(variation(routing.chosen.float())))
        optimizer.zero_grad()
        Balance(at="r").terms(given_step(taps={"r.expert_router": routing}))["balance"].backward()
        optimizer.step()
    assert used[0] > 0.3 and used[-1] < 0.02


def test_training_from_scratch_learns_and_draws_the_balance():
    view = applied(noisy=True, weighting="softmax", epochs=10.0, lr=1e-2)
    assert set(view.curves) == {"task", "balance"} and view.curves["task"][-1] < 0.7 * view.curves["task"][0]


def test_layers_that_cannot_be_wrapped_are_named():
    net = BY_NAME["attention"]
    view = View(net.make(), net.make(), net.example)
    words = ConditionalExperts().unmet(view, net.task())
    assert "blocks.0.widen and blocks.0.narrow are held by a module that does more" in words


def test_where_selects_whole_layers():
    view = applied(where="second.*")
    assert not isinstance(view.network.first, Experts) and isinstance(view.network.second, Experts)


def test_more_chosen_than_there_are_is_refused():
    with pytest.raises(BadValue, match="k must lie in 1..experts, which is 4, got 5"):
        ConditionalExperts(experts=4, k=5)


def test_clusters_are_of_one_size_and_find_rows_that_are_alike():
    generator = torch.Generator().manual_seed(3)
    kinds = torch.arange(4).repeat(6)
    rows = torch.eye(4)[kinds] * 3 + 0.1 * torch.randn(24, 4, generator=generator)
    for seed in range(3):
        found = balanced_clusters(rows, 4, torch.Generator().manual_seed(seed))
        assert found.bincount().tolist() == [6] * 4
    best = balanced_clusters(rows, 4, torch.Generator().manual_seed(1), rounds=20)
    assert max(len(set(kinds[best == one].tolist())) for one in range(4)) <= 2


def test_balance_is_the_sum_of_squared_variations():
    network = applied(noisy=True, weighting="softmax").network.train()
    routing = network.first.expert_router(torch.randn(10, 6))
    importance = (routing.gates * routing.chosen).sum(0)
    load = routing.load.sum(0)
    wanted = sum((one.std(correction=0) / one.mean()) ** 2 for one in (importance, load))
    step = given_step(taps={"first.expert_router": routing})
    found = Balance(at="first").terms(step)["balance"]
    torch.testing.assert_close(found, wanted)
    with pytest.raises(BadNetwork, match="no Experts at 'head'. It has them at first, second"):
        Balance(at="head").on(applied(), [], task())


def test_balance_finds_all_routers_and_says_where_there_is_none():
    view = applied()
    assert Balance().on(view, [], task()).at == "first, second"
    plain = View(copy.deepcopy(small()), small(), task().example)
    with pytest.raises(BadNetwork, match="no Experts in the network. Put conditional/experts before"):
        Balance().on(plain, [], task())
