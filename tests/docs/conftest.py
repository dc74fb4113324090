"""The digits network of the pages is trained once for all of them; searches end after a part of their time, learned roundings of their steps."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from cortado.methods.quantize.adaround import QuantizeAdaround
from cortado.nets.digits import DigitsNet
from cortado.planner.search import goal, ptq_search
from cortado.tasks.digits import task as digits
from cortado.training import loop


@pytest.fixture(autouse=True, scope="session")
def digits_net_trained_once() -> Iterator[None]:
    """Give a DigitsNet that a page trains the weights of one training; every other network trains as it is told."""
    real, kept, losses = loop.train, dict[str, torch.Tensor](), list[float]()

    def train(network: Any, task: Any, plan: loop.Training, **more: Any) -> Any:
        # A method that a page imports first trains as well.
        if not isinstance(network, DigitsNet) or more:
            return real(network, task, plan, **more)
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
def learned_roundings_are_short() -> Iterator[None]:
    """A page that learns how to round says the same of it after a tenth of the steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ptq_search.ROUNDINGS, "adaround", partial(QuantizeAdaround, steps=100))
        yield


@pytest.fixture(autouse=True, scope="module")
def searches_end_soon() -> Iterator[None]:
    """A page that gives a search ten seconds says the same of it after two."""
    real = goal.seconds_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(goal, "seconds_of", lambda time_limit, where: real(time_limit, where) / 5)
        yield
