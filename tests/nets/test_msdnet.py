"""MSDNet: scales and depths as in the paper, answers that only need what comes before them, and what the house does to it."""

import copy

import pytest
import torch
from torch import nn

import cortado
from cortado.errors import BadValue
from cortado.nets.catalog import by_name
from cortado.nets.msdnet import Layer, MSDNet, UpTo, msdnet, remaining_scales
from cortado.network.profile.answers import multiply_adds_so_far
from cortado.parts.blocks.rows import confidence
from cortado.runtimes.runtime import runtime_by_name
from cortado.task.task import Data, Task

PICTURES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL = {"exits": 3, "even": True, "width": 4, "growth": 4, "head": 8}


@pytest.fixture
def network() -> MSDNet:
    """A small one whose norms do something."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        made = msdnet(**SMALL)
        for one in made.modules():
            if isinstance(one, nn.BatchNorm2d):
                nn.init.normal_(one.running_mean, 0, 0.1)
                nn.init.uniform_(one.running_var, 0.5, 1.5)
    return made.eval()


def layers_in(network: MSDNet) -> list[int]:
    return [sum(isinstance(one, Layer) for one in block) for block in network.blocks]


@pytest.mark.parametrize(("exits", "depth"), [(4, 10), (5, 15), (6, 21), (7, 28), (8, 36)])
def test_networks_for_batches_have_the_depths_of_the_paper(exits, depth):
    with torch.device("meta"):
        found = layers_in(msdnet(exits=exits, width=2, growth=2, head=2))
    assert sum(found) == depth and found == list(range(1, exits + 1))


def test_network_for_any_time_answers_after_the_layers_of_the_paper():
    """Classifiers after layers 4, 6, ..., 24."""
    with torch.device("meta"):
        found = layers_in(msdnet(exits=11, first=4, step=2, even=True, width=2, growth=2, head=2))
    assert torch.tensor(found).cumsum(0).tolist() == [2 * (number + 1) for number in range(1, 12)]


def test_scales_end_after_equal_parts():
    assert remaining_scales(9, 3) == [3, 3, 3, 2, 2, 2, 1, 1, 1]
    assert remaining_scales(10, 3) == [3, 3, 3, 3, 2, 2, 2, 2, 1, 1]


def test_channels_grow_by_layer_and_scale_and_are_halved_where_a_scale_ends(network):
    """Three layers over three scales: 4 x (1, 2, 4) channels and as many more, then all that remain are halved."""
    with torch.no_grad():
        shapes, scales = [], network.stem(PICTURES)
        for block in (None, *network.blocks):
            scales = block(scales) if block is not None else scales
            shapes.append([tuple(one.shape[1:3]) for one in scales])
    assert shapes == [
        [(4, 32), (8, 16), (16, 8)], [(8, 32), (16, 16), (32, 8)], [(12, 16), (24, 8)], [(20, 8)],
    ]  # fmt: skip


def test_layer_keeps_what_was_there_and_adds_half_from_each_scale():
    layer = Layer([4, 8], [2, 6], [0, 0]).eval()
    fine, coarse = torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        first, second = layer([fine, coarse])
        assert torch.equal(first, torch.cat([fine, layer.same[0](fine)], 1))
        assert torch.equal(second, torch.cat([coarse, layer.down[0](fine), layer.same[1](coarse)], 1))
    assert layer.down[0][0].out_channels == layer.same[1][0].out_channels == 3 and layer.down[0][0].stride == (2, 2)


def test_answer_is_a_row_of_logits_from_each_classifier(network):
    with torch.no_grad():
        answers = network.answers(PICTURES)
        assert [tuple(one.shape) for one in answers] == [(6, 10)] * 3
        assert torch.equal(network(PICTURES), answers[-1])


@pytest.mark.parametrize("place", range(3))
def test_each_answer_needs_only_what_comes_before_it(network, place):
    """Later blocks and classifiers may be anything; and the network up to there gives the same."""
    changed = copy.deepcopy(network)
    for later in (*changed.blocks[place + 1 :], *changed.classifiers[place + 1 :]):
        for one in later.parameters():
            nn.init.constant_(one, float("nan"))
    with torch.no_grad():
        assert torch.equal(changed.answers(PICTURES)[place], network.answers(PICTURES)[place])
        assert torch.equal(UpTo(network, place)(PICTURES), network.answers(PICTURES)[place])


def test_gradient_of_an_answer_stops_at_its_classifier(network):
    network.answers(PICTURES)[0].sum().backward()
    reached = {name for name, one in network.named_parameters() if one.grad is not None}
    assert any(name.startswith("classifiers.0") for name in reached)
    assert not any(name.startswith(("classifiers.1", "classifiers.2", "blocks.1", "blocks.2")) for name in reached)


def test_first_sure_answer_is_returned(network):
    with torch.no_grad():
        answers = network.answers(PICTURES)
        sure = [confidence(one, "top") for one in answers]
        bounds = [float(one.median()) for one in sure[:2]]
        network.choose.thresholds.copy_(torch.tensor(bounds))
        found = network(PICTURES)
    for row in range(len(PICTURES)):
        place = next((at for at in range(2) if sure[at][row] > bounds[at]), 2)
        assert torch.equal(found[row], answers[place][row])
        assert network.choose.left_at()[row] == place


def test_cost_up_to_an_answer_is_that_of_the_network_up_to_there(network):
    """What only later answers need, such as finer scales, does not count; earlier classifiers do."""
    found = multiply_adds_so_far(network, PICTURES)["choose"]
    for place, cost in enumerate(found):
        alone = needed_alone(network, place)
        earlier = sum(cost_of_classifier(network, before) for before in range(place))
        assert cost == pytest.approx(alone + earlier)


def needed_alone(network: MSDNet, place: int) -> float:
    """Multiply-adds of all convolutions and linear layers of which a gradient reaches the weight."""
    up_to, seen = UpTo(copy.deepcopy(network), place), {}
    layers = [one for one in up_to.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    handles = [one.register_forward_hook(lambda layer, _, made: seen.update({layer: made})) for one in layers]
    up_to(PICTURES[:1]).sum().backward()
    for one in handles:
        one.remove()
    return sum(layer.weight[0].numel() * made.numel() for layer, made in seen.items() if layer.weight.grad is not None)


def cost_of_classifier(network: MSDNet, place: int) -> float:
    first, second, _, _, linear = network.classifiers[place]
    return 16 * first[0].weight.numel() + 4 * second[0].weight.numel() + linear.weight.numel()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exits": 1}, "exits must be 2 or more, got 1"),
        ({"growth": 1}, "growth must be 2 or more, got 1"),
        ({"scales": 0}, "scales must be 1 or more"),
        ({"exits": 2, "even": True, "scales": 3}, "3 scales need as many layers, got 2"),
    ],
)
def test_numbers_that_make_no_network_are_refused(options, message):
    with pytest.raises(BadValue, match=message):
        by_name("msdnet", **options)


def small_task() -> Task:
    data = Data(PICTURES.repeat(4, 1, 1, 1), torch.arange(24) % 10)
    return Task(data, data, data, calibration=data, batch=8, trial=True)


@pytest.mark.parametrize(
    "recipe",
    [
        "prune/channels keep=0.7",
        "prune/weights keep=0.5",
        "quantize/weights bits=8 | quantize/activations",
        "simplify/norms",
    ],
)
def test_file_gives_back_every_answer_of_what_was_made_smaller(network, tmp_path, recipe):
    network.choose.thresholds.fill_(0.12)
    task = small_task()
    small, _ = cortado.compress(network, task, recipe)
    cortado.save(small, tmp_path / "net.cortado", network)
    loaded = cortado.load(tmp_path / "net.cortado", network)
    with torch.no_grad():
        assert torch.equal(loaded(PICTURES), small(PICTURES))
        assert all(
            torch.equal(one, other)
            for one, other in zip(loaded.answers(PICTURES), small.answers(PICTURES), strict=True)
        )
    assert torch.equal(loaded.choose.thresholds, network.choose.thresholds)


@pytest.mark.parametrize("thresholds", [(2.0, 2.0), (0.13, 0.12), (-1.0, -1.0)])
def test_runtime_gives_the_first_sure_answer(network, tmp_path, thresholds):
    network.choose.thresholds.copy_(torch.tensor(thresholds))
    runtime = runtime_by_name("onnxruntime")
    row = cortado.export(network, small_task(), runtime, tmp_path / "out")
    assert row.difference < 1e-4 and row.same_top == 1
    session = runtime.load(tmp_path / "out/net.onnx", 1)
    with torch.no_grad():
        for count in (1, 5):
            (found,) = session(PICTURES[:count])
            torch.testing.assert_close(found, network(PICTURES[:count]), rtol=1e-4, atol=1e-5)
