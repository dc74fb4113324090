"""prune/channels and prune/heads: which units go, how many, what it costs, and least squares afterwards."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cortado
from cortado.errors import BadNetwork
from cortado.lowering.lower import dense
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.heads import PruneHeads
from cortado.methods.prune.reconstruct import RIDGE, readers_of, reconstruct
from cortado.network.profile.profile import profile
from cortado.network.profile.pruned_cost import Costs
from cortado.network.view import View
from cortado.task.task import Data, Task
from tests.network.coupling.test_proof import TOKENS, scaled_attention

GENERATOR = torch.Generator().manual_seed(3)
IMAGES = torch.randn(96, 3, 8, 8, generator=GENERATOR)
TARGETS = (IMAGES[:, 0].mean((1, 2)) > 0).long()


def task() -> Task:
    return Task(*(Data(IMAGES[a:b], TARGETS[a:b]) for a, b in ((0, 48), (48, 72), (72, 96))), batch=16)


def net() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1, stride=2), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 2),
    ).eval()  # fmt: skip


def cut(method: PruneChannels, network: nn.Module | None = None) -> nn.Module:
    small = copy.deepcopy(net() if network is None else network)
    original = copy.deepcopy(small)
    method.apply(View(small, original, IMAGES[:2], reference=original), task())
    return small


def multiply_adds(network: nn.Module) -> float:
    return multiply_adds_of(network, IMAGES[:1])


def multiply_adds_of(network: nn.Module, example: Tensor) -> float:
    return profile(network, example).total("multiply_adds").value


def test_channels_with_the_largest_sum_of_magnitudes_stay() -> None:
    original, small = net(), cut(PruneChannels(keep=0.5, multiple=1))
    best = original[0].weight.abs().sum((1, 2, 3)).topk(8).indices.sort().values
    assert torch.equal(small[0].weight, original[0].weight[best])
    assert torch.equal(small[1].running_mean, original[1].running_mean[best])
    assert (small[0].out_channels, small[3].in_channels, small[3].out_channels, small[8].in_features) == (8, 8, 12, 12)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_cut_to_a_share_of_multiply_adds_is_the_mildest_below_it(keep: float, across: bool) -> None:
    original, small = net(), cut(PruneChannels(keep=keep, of="multiply_adds", across=across, multiple=1))
    share = multiply_adds(small) / multiply_adds(original)
    # One channel more of the widest layer is at most a sixteenth of a layer.
    assert keep - 0.1 < share <= keep


def test_cut_to_a_share_of_parameters() -> None:
    original, small = net(), cut(PruneChannels(keep=0.4, of="parameters"))
    share = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in original.parameters())
    assert 0.33 < share <= 0.4


def test_across_layers_the_layer_that_matters_less_gives_more() -> None:
    """Half of the second layer's channels hardly carry anything: it gives them, and the first keeps all of its own."""
    network = net()
    with torch.no_grad():
        network[3].weight[::2] *= 0.01
    both = cut(PruneChannels(keep=0.7, across=True, by="magnitude_l2", multiple=1), network)
    each = cut(PruneChannels(keep=0.7, by="magnitude_l2", multiple=1), network)
    assert (both[0].out_channels, both[3].out_channels) == (16, 12)
    assert (each[0].out_channels, each[3].out_channels) == (11, 17)


def test_counts_are_multiples_where_they_can_be() -> None:
    small = cut(PruneChannels(keep=0.45, multiple=8))
    assert (small[0].out_channels, small[3].out_channels) == (8, 8)


def test_a_group_keeps_at_least_one_multiple() -> None:
    small = cut(PruneChannels(keep=0.15, multiple=8))
    assert (small[0].out_channels, small[3].out_channels) == (8, 8)


def test_least_keeps_a_share_of_every_group() -> None:
    network = net()
    with torch.no_grad():
        network[0].weight *= 1e-6
    small = cut(PruneChannels(keep=0.5, across=True, least=0.25), network)
    assert small[0].out_channels >= 4


def test_where_cuts_only_groups_that_it_takes_whole() -> None:
    small = cut(PruneChannels(keep=0.5, where="0"))
    assert (small[0].out_channels, small[3].in_channels, small[3].out_channels) == (8, 8, 24)


def test_least_squares_give_back_what_a_copied_channel_carried() -> None:
    """Channels 8 to 15 do what 0 to 7 do: without them the readers can be as good, if they learn to."""
    network = net()
    with torch.no_grad():
        for own in (network[0].weight, network[0].bias, network[1].weight, network[1].bias):
            own[8:] = own[:8]
    with torch.no_grad():
        wanted = network(IMAGES)
        errors = []
        for ridge in (None, 0.01, RIDGE):
            small, original = copy.deepcopy(network), copy.deepcopy(network)
            view = View(small, original, IMAGES[:2], reference=original)
            (group,) = [g for g in view.groups.free if g.name == "0"]
            readers = readers_of(view, [group])
            view.cut({group: torch.arange(8)})
            if ridge is not None:
                reconstruct(view, task(), readers, ridge)
            errors.append(float((small(IMAGES) - wanted).norm() / wanted.norm()))
    assert errors[0] > 0.05, "the cut alone has to hurt"
    assert errors[1] < 0.2 * errors[0], "what the ridge holds back aside, the readers can be as good"
    assert errors[2] < 0.5 * errors[0]


@pytest.mark.parametrize("by", ["magnitude", "magnitude_l2", "gains", "zeros", "taylor", "curvature", "random"])
def test_every_score_ranks_channels(by: str) -> None:
    small = cut(PruneChannels(keep=0.5, by=by, multiple=1))
    assert (small[0].out_channels, small[3].out_channels) == (8, 12)


@pytest.mark.parametrize("by", ["gains", "taylor", "curvature"])
def test_scores_that_look_further_drop_the_channels_that_carry_nothing(by: str) -> None:
    network = net()
    silent = torch.tensor([1, 4, 6, 7, 9, 11, 13, 14])
    with torch.no_grad():
        network[1].weight[silent] = 0
        network[1].bias[silent] = -1
    small = cut(PruneChannels(keep=0.5, by=by, where="0"), network)
    loud = torch.tensor([n for n in range(16) if n not in silent.tolist()])
    assert torch.equal(small[0].weight, network[0].weight[loud])
    torch.testing.assert_close(small(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)


def test_pruned_quantized_and_factored_weights_are_cut_as_they_are_held() -> None:
    small, report = cortado.compress(
        net(), task(), "prune/weights keep=0.5 | quantize/weights bits=6 | prune/channels keep=0.5 multiple=1"
    )
    assert small[0].out_channels == 8
    assert len(torch.unique(small[0].weight)) <= 64
    assert report.size_bytes < report.original_bytes / 4
    again, _ = cortado.compress(net(), task(), "factorize/svd rank=6 where=3 | prune/channels keep=0.5 multiple=1")
    assert again(IMAGES).shape == (96, 2) and again[3].out_channels == 12


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.query, self.key, self.value, self.leave = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, activation: Tensor) -> Tensor:
        split = [
            one(activation).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one in (self.query, self.key, self.value)
        ]
        return self.leave(functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)).mean(1)


@pytest.mark.parametrize("by", ["magnitude", "taylor", "curvature"])
def test_heads_that_say_nothing_go_and_the_rest_answers_as_before(by: str) -> None:
    torch.manual_seed(4)
    network = nn.Sequential(Attending(), nn.Linear(16, 2)).eval()
    with torch.no_grad():
        for head in (0, 2):
            rows = slice(4 * head, 4 * head + 4)
            network[0].leave.weight[:, rows] = 0
            for layer in (network[0].query, network[0].key, network[0].value):
                layer.weight[rows] *= 1e-3
                layer.bias[rows] *= 1e-3
    words = torch.randn(48, 5, 16, generator=torch.Generator().manual_seed(5))
    data = Data(words, (words.mean((1, 2)) > 0).long())
    small = copy.deepcopy(network)
    original = copy.deepcopy(network)
    PruneHeads(keep=0.5, by=by).apply(
        View(small, original, words[:2], reference=original), Task(data, data, data, batch=16)
    )
    assert small[0].heads == 2 and small[0].leave.in_features == 8
    torch.testing.assert_close(small(words), network(words), rtol=1e-4, atol=1e-5)


def test_no_group_falls_below_least_for_the_sake_of_multiples() -> None:
    small = cut(PruneChannels(keep=0.4, least=0.4, multiple=7))
    assert (small[0].out_channels, small[3].out_channels) == (7, 14)


def test_equals_go_from_every_group_alike() -> None:
    network = net()
    with torch.no_grad():
        network[0].weight[:8] = network[3].weight[:12] = 0
        network[0].bias[:8] = network[3].bias[:12] = 0
    small = cut(PruneChannels(keep=0.7, across=True, multiple=1), network)
    assert (small[0].out_channels, small[3].out_channels) == (11, 17)


def test_other_groups_meet_the_share_of_those_left_whole() -> None:
    network = scaled_attention()
    small, original = copy.deepcopy(network), copy.deepcopy(network)
    view = View(small, original, TOKENS, reference=original)
    PruneChannels(keep=0.75, of="parameters", multiple=1).apply(view, task())
    assert small.query.out_features == 8
    assert len(view.notes) == 1 and "Not cut" in view.notes[0] and "query" in view.notes[0]
    left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in network.parameters())
    assert 0.6 < left <= 0.75


def test_the_price_of_channels_in_low_rank_is_that_of_the_factors() -> None:
    torch.manual_seed(7)
    original = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    ).eval()  # fmt: skip
    svd = {"factorize/svd": {"rank": 6, "where": "2, 4"}}
    factored, _ = cortado.compress(original, task(), [svd])
    small, _ = cortado.compress(original, task(), [svd, {"prune/channels": {"keep": 0.5, "of": "multiply_adds"}}])
    share = multiply_adds(dense(small)) / multiply_adds(dense(factored))
    assert 0.4 < share <= 0.5


def test_cost_of_recurrent_channels_has_both_matrices() -> None:
    network = nn.LSTM(6, 16, batch_first=True)
    view = View(network, network, torch.randn(2, 5, 6))
    costs, whole = Costs(view, "multiply_adds"), multiply_adds_of(network, torch.randn(2, 5, 6))
    assert sum(cost for cost, _, _ in costs.parts) == pytest.approx(whole)
    assert [cost for cost, _, _ in costs.parts] == pytest.approx([whole * 6 / 22, whole * 16 / 22])


def test_what_least_keeps_of_one_layer_the_others_give() -> None:
    """All channels of the first layer are worth less than any of the second, and a quarter of them stays all the same."""
    view = View(net(), net(), IMAGES[:2])
    first, second = sorted(view.groups.free, key=lambda group: group.count)
    method = PruneChannels(keep=0.5, across=True, least=0.25, multiple=1)
    keeps = method.quota().allocate({first: torch.rand(16), second: torch.rand(24) + 1})
    assert len(keeps[first]) == 4 and len(keeps[second]) == 16


def test_reader_called_without_a_batch_axis_is_refused_in_words() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            made = torch.relu(self.one(images))
            return torch.stack([self.two(image).mean((1, 2)) for image in made])

    with pytest.raises(BadNetwork, match="cannot be assigned to samples"):
        cut(PruneChannels(keep=0.5, by="taylor"), Apart().eval())


def test_least_and_multiple_bound_a_small_share() -> None:
    small = cut(PruneChannels(keep=0.1, across=True, multiple=8))
    assert (small[0].out_channels, small[3].out_channels) == (8, 8)
