"""What objectives make of outputs and layers of other kinds than logits and maps."""

import pytest
import torch

from cortado.errors import BadNetwork
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.several import several
from cortado.training.objectives.attention import Attention
from cortado.training.objectives.channelwise import Channelwise
from cortado.training.objectives.logits import Logits
from tests.training.objectives.given import given_step, random_numbers, total


def test_temperature_leaves_numbers_as_they_are():
    """Only a softmax is softened, and only its share has T^2."""
    mine, wanted = random_numbers(6, 3).float(), random_numbers(6, 3, seed=1).float()
    cold, hot = (
        total(Logits(temperature=one), given_step(mine, wanted, kind=Numbers(variance=1.0))) for one in (1.0, 4.0)
    )
    torch.testing.assert_close(cold, hot)
    torch.testing.assert_close(cold, (mine - wanted).square().mean() / 2)
    kinds = several({"a": Classes(), "b": Numbers(variance=1.0)})
    both = given_step({"a": mine, "b": mine}, {"a": wanted, "b": wanted}, kind=kinds)
    classes = given_step(mine, wanted, kind=Classes())
    for temperature in (1.0, 3.0):
        softened = total(Logits(temperature=temperature), classes)
        torch.testing.assert_close(total(Logits(temperature=temperature), both), softened + cold)


@pytest.mark.parametrize("objective", [Attention(at="x"), Channelwise(at="x")])
def test_layers_of_one_place_are_refused(objective):
    step = given_step(taps={"x": random_numbers(4, 6)}, taught_taps={"x": random_numbers(4, 6, seed=1)})
    with pytest.raises(
        BadNetwork, match=rf"{objective.name()} compares the places .* x gives shape \(4, 6\).* before the pool"
    ):
        objective.terms(step)
