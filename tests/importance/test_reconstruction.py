"""Reconstruction and lasso: channels against least squares by brute force."""

import math
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.importance.lasso import SMALLEST, STEPS, Lasso, descend, path
from cortado.importance.reconstruction import Reconstruction
from cortado.methods.prune.channels import PruneChannels
from cortado.network.statistics import elimination
from cortado.network.statistics.activations import Sums
from cortado.network.statistics.elimination import RIDGE, problems
from cortado.network.view import View
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME

SCORES = (Reconstruction(), Lasso())


def seen(network, *shape, samples=64):
    torch.manual_seed(2)
    data = Data(torch.randn(samples, *shape), torch.randint(0, 2, (samples,)))
    return View(network.eval(), network, data.inputs[:2]), Task(data, data, data, calibration=data)


def two_layers():
    """Five channels read by a 3 x 3 convolution; every position of a 6 x 6 image is looked at."""
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten())


def order_of(worth):
    return worth.argsort().tolist()


def test_linearly_redundant_channel_goes_first_however_large_it_is():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    with torch.no_grad():
        network[0].weight[3], network[0].bias[3] = network[0].weight[0], network[0].bias[0]
        network[0].weight[2] *= 0.5
    view, task = seen(network, 6)
    (worth,) = Reconstruction().of_units(view.groups.free, view, task)
    assert order_of(worth)[0] in (0, 3)
    # Once one of the copies is gone the other one counts.
    assert order_of(worth)[1] not in (0, 3)


def test_lasso_of_channels_apart_drops_what_adds_least():
    """Without correlation a factor is zero once the penalty reaches its channel's power over its weights' norm."""
    powers, norms = torch.tensor([4.0, 1.0, 9.0, 2.0]).double(), torch.tensor([1.0, 0.1, 6.0, 1.0]).double()
    assert order_of(path(torch.diag(powers), norms)) == order_of(powers / norms)


def residual(rows, weight, kept):
    """What least squares leave of the outputs rows @ weight.T when only some columns stay."""
    wanted = rows @ weight.T
    found = torch.linalg.lstsq(rows[:, kept], wanted).solution
    return float((rows[:, kept] @ found - wanted).square().sum())


def rows_of(network, task):
    """What the last convolution reads at all positions, about its mean, and the rows that stand for the ridge."""
    with torch.no_grad():
        activation = network[:2](task.train.inputs)
    rows = functional.unfold(activation, 3).transpose(1, 2).flatten(0, 1).double()
    rows = (rows - rows.mean(0)) / len(rows) ** 0.5
    ridge = RIDGE * float(rows.square().sum(0).mean())
    return rows, torch.cat([rows, ridge**0.5 * torch.eye(rows.shape[1], dtype=torch.float64)])


def test_channels_go_in_the_order_that_brute_force_finds():
    network = two_layers()
    view, task = seen(network, 3, 8, 8)
    (worth,) = Reconstruction().of_units(view.groups.free, view, task)
    original, rows = rows_of(network, task)
    weight = network[2].weight.detach().flatten(1).double()
    power = float((original @ weight.T).square().sum())
    columns = torch.arange(45).view(5, 9)
    alive, before, least = list(range(5)), 0.0, 0.0
    for unit in order_of(worth)[:4]:
        costs = {one: residual(rows, weight, columns[[u for u in alive if u != one]].flatten()) for one in alive}
        assert unit == min(costs, key=costs.get)
        least = max(least, (costs[unit] - before) / power)
        assert float(worth[unit]) == pytest.approx(least, rel=1e-4)
        before = costs[unit]
        alive.remove(unit)
    # Here taking them one by one finds the best of all pairs as well.
    pairs = {pair: residual(rows, weight, columns[list(pair)].flatten()) for pair in combinations(range(5), 2)}
    assert set(order_of(worth)[3:]) == set(min(pairs, key=pairs.get))


def test_wide_layers_are_looked_at_by_what_each_channel_adds(monkeypatch):
    monkeypatch.setattr(elimination, "MOST_COLUMNS", 8)
    network = two_layers()
    view, task = seen(network, 3, 8, 8)
    ((problem,),) = problems(view, view.groups.free, task)
    rows, _ = rows_of(network, task)
    weight = network[2].weight.detach().flatten(1).double()
    parts = [(rows[:, c : c + 9] @ weight[:, c : c + 9].T).flatten() for c in range(0, 45, 9)]
    added = torch.stack(parts, 1)
    torch.testing.assert_close(problem.moments, added.T @ added, rtol=1e-4, atol=1e-6)
    (worth,) = Reconstruction().of_units(view.groups.free, view, task)
    rest = [residual(added, torch.ones(1, 5).double(), [u for u in range(5) if u != one]) for one in range(5)]
    assert order_of(worth)[0] == rest.index(min(rest))


def test_moments_by_unit_are_the_same_either_way(monkeypatch):
    network = two_layers()
    view, task = seen(network, 3, 8, 8)
    ((whole,),) = problems(view, view.groups.free, task)
    monkeypatch.setattr(elimination, "MOST_COLUMNS", 8)
    ((coarse,),) = problems(view, view.groups.free, task)
    torch.testing.assert_close(whole.by_unit(5), coarse.moments, rtol=1e-4, atol=1e-6)
    assert whole.power() == pytest.approx(coarse.power(), rel=1e-4)


class Joined(nn.Module):
    """Two layers whose channels are joined, then flattened: a channel is many columns, and not all are of one group."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 2, 3), nn.Linear(5 * 16, 4)

    def forward(self, images):
        return self.head(torch.cat([self.one(images), self.two(images)], 1).relu().flatten(1))


@pytest.mark.parametrize("score", SCORES, ids=["reconstruction", "lasso"])
def test_silent_channels_go_first_through_joins_and_flattening(score):
    torch.manual_seed(1)
    network = Joined()
    with torch.no_grad():
        network.one.weight[1], network.one.bias[1] = 0, -1
        network.head.weight[:, 4 * 16 :] *= 1e-3
    view, task = seen(network, 1, 6, 6)
    by_name = dict(zip([g.name for g in view.groups.free], score.of_units(view.groups.free, view, task), strict=True))
    assert order_of(by_name["one"])[0] == 1 and float(by_name["one"].min()) < 1e-3
    assert order_of(by_name["two"]) == [1, 0]


@pytest.mark.parametrize("score", SCORES, ids=["reconstruction", "lasso"])
@pytest.mark.parametrize("name", ["residual", "depthwise", "transformer", "recurrent"])
def test_every_group_that_a_known_layer_reads_is_ranked(score, name):
    tiny = BY_NAME[name]
    view = View(tiny.make(), tiny.make(), tiny.example)
    groups = view.groups.free
    first, again = (score.of_units(groups, view, tiny.task()) for _ in range(2))
    for group, worth, same in zip(groups, first, again, strict=True):
        assert worth.shape == (group.count,) and bool(torch.isfinite(worth).all()) and float(worth.min()) >= 0
        assert torch.equal(worth, same)
        assert len(worth.unique()) > group.count / 2


def test_cut_with_least_squares_loses_less_than_by_magnitude():
    tiny = BY_NAME["residual"]
    moved = {}
    for by in ("reconstruction", "lasso", "magnitude"):
        network, original, task = tiny.make(), tiny.make(), tiny.task()
        PruneChannels(keep=0.5, by=by, where="first", reconstruct=True).apply(
            View(network, original, tiny.example), task
        )
        with torch.no_grad():
            wanted = original(task.validation.inputs)
            moved[by] = float((network(task.validation.inputs) - wanted).norm() / wanted.norm())
    assert moved["reconstruction"] < moved["magnitude"] and moved["lasso"] < moved["magnitude"]


def test_descent_ends_where_no_factor_can_be_better():
    torch.manual_seed(0)
    rows = torch.randn(80, 6, dtype=torch.float64)
    gram, wanted, penalty = rows.T @ rows / 80, rows.T @ rows @ torch.ones(6, dtype=torch.float64) / 80, 0.6
    factors = torch.ones(6, dtype=torch.float64)
    descend(gram, wanted, penalty, factors, gram @ factors)
    slopes = wanted - gram @ factors
    torch.testing.assert_close(slopes[factors != 0], penalty * factors.sign()[factors != 0], rtol=1e-3, atol=1e-3)
    assert bool((factors != 0).any()) and bool((slopes[factors == 0].abs() <= penalty + 1e-3).all())


@pytest.mark.parametrize("score", SCORES, ids=["reconstruction", "lasso"])
def test_single_weights_and_unread_channels_are_refused_in_words(score):
    view, task = seen(two_layers(), 3, 8, 8)
    with pytest.raises(BadNetwork, match="it ranks whole channels. Use it with prune/channels"):
        score.of(view.weights("*"), view, task)
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ConvTranspose2d(4, 2, 3), nn.Flatten())
    view, task = seen(network, 1, 4, 4)
    with pytest.raises(BadNetwork, match="the units of 0 are not read by a linear or convolution layer"):
        score.of_units(view.groups.free, view, task)


def test_lasso_knows_the_weights_of_wide_layers_too(monkeypatch):
    """Channel 0 says as much as the others through a weight ten times as large: it goes first, wide or not."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        network[0].weight[0] /= 10
        network[0].bias[0] /= 10
        network[2].weight[:, 0] *= 10
    view, task = seen(network, 6)
    (whole,) = Lasso().of_units(view.groups.free, view, task)
    monkeypatch.setattr(elimination, "MOST_COLUMNS", 1)
    (coarse,) = Lasso().of_units(view.groups.free, view, task)
    # The path goes in steps, and a unit is worth the one at which it leaves: by rounding one of them may be the next.
    steps = (coarse / whole).log() / (-math.log(SMALLEST) / (STEPS - 1))
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=0.02)
    assert int((steps.round() != 0).sum()) <= 1 and int(steps.round().abs().max()) <= 1


def test_activations_far_from_zero_are_ranked_like_those_around_it():
    """Moments about the mean, of rows whose mean is ten thousand times their deviation."""
    network = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    view, task = seen(network, 6)
    (wanted,) = Reconstruction().of_units(view.groups.free, view, task)
    with torch.no_grad():
        network[0].bias += 3000.0
    (worth,) = Reconstruction().of_units(view.groups.free, view, task)
    assert order_of(worth) == order_of(wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("score", SCORES, ids=("reconstruction", "lasso"))
def test_units_are_ranked_in_any_float_type(dtype, score):
    network = two_layers().to(dtype)
    data = Data(torch.randn(16, 3, 8, 8, dtype=dtype), torch.zeros(16).long())
    view, task = View(network, network, data.inputs[:2]), Task(data, data, data, calibration=data)
    (worth,) = score.of_units(view.groups.free, view, task)
    assert len(worth.unique()) == 5


@pytest.mark.parametrize("score", SCORES[:1], ids=("reconstruction",))
def test_activations_without_sound_moments_are_refused_in_words(score):
    network = two_layers()
    view, task = seen(network, 3, 8, 8)
    groups = view.groups.free
    with torch.no_grad():
        network[0].weight.mul_(1e38)
    with pytest.raises(BadNetwork, match="no valid second moments"):
        score.of_units(groups, view, task)


def test_a_batch_without_rows_says_nothing():
    sums, rows = Sums(), torch.randn(50, 3, generator=torch.Generator().manual_seed(1)) + 7
    for part in (rows[:0], rows[:20], rows[:0], rows[20:]):
        sums.add(part)
    torch.testing.assert_close(sums.moments().mean, rows.double().mean(0))
    torch.testing.assert_close(
        sums.moments().covariance, torch.cov(rows.double().T, correction=0), rtol=1e-4, atol=1e-5
    )
