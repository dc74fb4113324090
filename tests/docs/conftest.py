"""The digits network of the pages is trained once for all of them, and searches end after a part of the time they are given."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cortado.nets.digits import DigitsNet
from cortado.planner.search import goal
from cortado.tasks.digits import task as digits
from cortado.training import loop


@pytest.fixture(autouse=True, scope="session")
def digits_net_trained_once() -> Iterator[None]:
    """Give a DigitsNet that a page trains the weights of one training; every other network trains as it is told."""
    real, kept, losses = loop.train, dict[str, torch.Tensor](), list[float]()

    def train(network: Any, task: Any, plan: loop.Training) -> float:
        if not isinstance(network, DigitsNet):
            return real(network, task, plan)
        if not kept:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(0)
                trained = DigitsNet()
            losses.append(real(trained, digits(), loop.Training(epochs=6, lr=3e-3)))
            kept.update(trained.state_dict())
        network.eval().load_state_dict(kept)
        return losses[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", train)
        yield


@pytest.fixture(autouse=True, scope="module")
def searches_end_soon() -> Iterator[None]:
    """A page that gives a search ten seconds says the same of it after two."""
    real = goal.seconds_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(goal, "seconds_of", lambda time_limit, where: real(time_limit, where) / 5)
        yield
