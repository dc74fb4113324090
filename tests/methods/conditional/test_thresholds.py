"""conditional/thresholds: the bound, the path of confidences, and what is refused."""

import copy
from itertools import pairwise
from math import comb

import pytest
import torch

import cortado
from cortado.engine.recipe import read_recipe
from cortado.errors import BadNetwork, BadRecipe, BadTask, NothingChanged
from cortado.methods.conditional.thresholds import (
    ConditionalThresholds,
    EarlyAnswers,
    early_answers,
    laid_path,
    stopping_costs,
    sures_in,
    upper_bound,
)  # fmt: skip
from cortado.nets.cascade import Cascade
from cortado.network.view import View
from cortado.parts.blocks.rows import NEVER
from cortado.task.metric import Metric
from tests.laws.tiny_nets import BY_NAME, Depthwise

NET = BY_NAME["residual"]


@pytest.mark.parametrize(("harmed", "count"), [(0, 50), (3, 200), (40, 5000)])
def test_bound_is_the_share_at_which_so_few_are_rare(harmed, count):
    share = upper_bound(harmed, count, 0.9)
    seen = (
        sum(comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(harmed + 1)) if count < 1000 else 0.1
    )
    assert seen == pytest.approx(0.1, abs=1e-6) and share > harmed / count
    assert upper_bound(0, count, 0.9) == pytest.approx(1 - 0.1 ** (1 / count), abs=1e-9)
    assert upper_bound(count, count, 0.9) == 1.0


def test_bound_holds_on_new_samples_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    held = [upper_bound(int((torch.rand(300, generator=generator) < 0.02).sum()), 300, 0.9) >= 0.02 for _ in range(400)]
    assert sum(held) / len(held) > 0.88


def made_up(count=4000):
    """EarlyAnswers of three networks: confidences say how often the first two are right."""
    generator = torch.Generator().manual_seed(0)
    sure = torch.rand(2, count, generator=generator)
    right = torch.rand(3, count, generator=generator)
    shares = torch.stack([(right[0] < sure[0]), (right[1] < sure[1] ** 0.2), right[2] < 0.97]).double()
    return EarlyAnswers((), sure, shares)


def test_path_falls_from_strict_to_loose_and_trusts_the_better_answer_sooner():
    found = made_up()
    path = laid_path(found, [1.0, 2.0, 10.0])
    assert all(a >= b for one, other in pairwise(path) for a, b in zip(one, other, strict=True))
    middle = next(one for one in path if found.harmed(one).double().mean() > 0.03)
    assert middle[1] < middle[0]


def test_loss_stays_below_what_was_asked_on_new_samples():
    found = made_up(8000)
    method = ConditionalThresholds(lose=3.0)
    path, judged = method.path(found, [1.0, 2.0, 10.0])
    chosen = method.loosest(path, judged)
    new = made_up(20000)
    harmed = float(new.harmed(chosen).double().mean())
    assert 0.015 < harmed <= 0.03 and judged.count == 4000


def cascade():
    torch.manual_seed(0)
    return Cascade([Depthwise(), NET.make()], [torch.nn.Identity()] * 2).eval()


def test_costs_are_those_up_to_each_answer():
    network = cascade()
    view = View(network, network, NET.example)
    costs = stopping_costs(view, sures_in(network))
    alone = [cortado.profile(one, NET.example).total("multiply_adds").value for one in network.members]
    assert costs == [alone[0], sum(alone)]


def test_answers_are_those_of_the_members_and_nothing_is_left_behind():
    network, task = cascade(), NET.task()
    network.sure.thresholds.fill_(0.4)
    found = early_answers(network, task)
    with torch.no_grad():
        for member, share in zip(network.members, found.shares, strict=True):
            right = member(task.validation.inputs).argmax(1) == task.validation.targets
            assert torch.equal(share.bool(), right)
    assert network.sure.thresholds.tolist() == pytest.approx([0.4]) and not network.sure._forward_pre_hooks


def test_what_cannot_be_is_refused_in_words():
    network, task = cascade(), NET.task()
    view = View(network, network, NET.example)
    with pytest.raises(NothingChanged, match="no sample may stop early: with .* samples"):
        ConditionalThresholds(lose=0.0, seen=True).apply(view, task)
    assert network.sure.thresholds.eq(NEVER).all()
    alone = NET.make()
    with pytest.raises(NothingChanged, match="an answer before the last, and Residual has none"):
        ConditionalThresholds().apply(View(alone, alone, NET.example), task)
    whole = copy.copy(task)
    object.__setattr__(
        whole, "metric", Metric(each=lambda o, t: (o.argmax(1) == t).float()[:, None], whole=lambda s: s[..., 0])
    )
    with pytest.raises(BadTask, match="no mean over samples"):
        ConditionalThresholds().apply(view, whole)
    with torch.no_grad():
        network.members[0].head.bias.fill_(float("nan"))
    with pytest.raises(BadNetwork, match="NaN on the validation data"):
        ConditionalThresholds(seen=True).apply(view, task)


def test_data_known_by_heart_are_refused():
    count = 200
    inputs = torch.randn(count, 1, 8, 8)
    network = cascade()
    targets = network.members[1](inputs).argmax(1)
    parts = (inputs, targets)
    task = cortado.Task(parts, parts, parts, device="cpu")
    with pytest.raises(NothingChanged, match="by heart, .* seen: true"):
        ConditionalThresholds().apply(View(network, network, NET.example), task)


def test_no_stage_may_follow():
    with pytest.raises(BadRecipe, match="Put conditional/thresholds last"):
        read_recipe("conditional/exits at=stem | conditional/thresholds | quantize/weights bits=8")
