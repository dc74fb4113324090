"""Holistic distillation: the critic's penalty, and that it learns to tell while the network learns to deceive."""

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.task.task import Data, Task
from cortado.training.loop import train
from cortado.training.objectives.holistic import Holistic, MapCritic, gradient_penalty
from cortado.training.training import Training
from tests.training.objectives.given import Slope, given_step, random_numbers, with_modules


@pytest.mark.parametrize(("slope", "penalty"), [(1.0, 0.0), (3.0, 4.0), (0.5, 0.25)])
def test_penalty_is_the_squared_distance_of_the_slope_from_one(slope, penalty):
    mine, wanted = random_numbers(3, 2, 4, 4), random_numbers(3, 2, 4, 4, seed=1)
    assert float(gradient_penalty(Slope(slope, 32), mine, wanted)) == pytest.approx(penalty, abs=1e-12)


def test_critic_sees_the_picture_at_the_size_of_the_maps():
    objective = Holistic(width=4)
    step = given_step(
        random_numbers(2, 5, 4, 6), random_numbers(2, 5, 4, 6, seed=1), inputs=random_numbers(2, 3, 8, 12)
    )
    mine, wanted = objective.maps(step)
    assert mine.shape == wanted.shape == (2, 8, 4, 6) and torch.equal(mine[:, 5:], wanted[:, 5:])
    torch.testing.assert_close(mine[:, :5].sum(1), torch.ones(2, 4, 6, dtype=torch.float64))
    assert isinstance(objective.modules(step)["critic"], MapCritic)


def test_critic_has_nothing_to_tell_where_both_are_equal():
    objective = Holistic(width=4, penalty=0.0)
    outputs = random_numbers(2, 5, 8, 8)
    step = with_modules(objective, given_step(outputs, outputs.clone(), inputs=random_numbers(2, 3, 8, 8)))
    assert objective.critic_terms(step)["holistic critic"].item() == pytest.approx(0, abs=1e-12)


def small_net(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))


def test_network_and_critic_move_against_each_other():
    inputs = random_numbers(16, 3, 8, 8).float()
    data = Data(inputs, torch.zeros(16, 8, 8, dtype=torch.long))
    task = Task(data, data, data, batch=8, device="cpu", trial=True)
    network, teacher = small_net(0), small_net(1)
    with torch.no_grad():
        teacher[2].weight.mul_(5)
        teacher[2].bias.add_(torch.tensor([3.0, 0.0, -3.0]))

    def apart() -> float:
        with torch.no_grad():
            return float((network(inputs).softmax(1) - teacher(inputs).softmax(1)).mean((0, 2, 3)).norm())

    before = apart()
    objective = Holistic(weight=1.0, width=4, lr=5e-3, penalty=1.0)
    trained = train(network, task, Training(epochs=30, lr=0.01), objectives=(objective,), teachers=(teacher,))
    assert set(trained.curves) == {"holistic", "holistic critic"}
    assert apart() < 0.7 * before


def test_outputs_that_are_no_maps_are_told():
    step = given_step(random_numbers(2, 5), random_numbers(2, 5), inputs=random_numbers(2, 3, 8, 8))
    with pytest.raises(BadNetwork, match="holistic compares maps"):
        Holistic().maps(step)
