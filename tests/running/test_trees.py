"""Tensors are found in whatever holds them, in order, and nothing else is looked into."""

from collections import OrderedDict, UserDict, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from cortado.running.trees import tensors_in

ONE, TWO = torch.ones(1), torch.ones(2)


@dataclass(frozen=True, slots=True)
class Slotted:
    first: Tensor
    second: Any


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Own:
    def __init__(self, first: Any, second: Any) -> None:
        self.me, self.network, self.first, self.words, self.second = self, nn.Linear(2, 2), first, "words", second


@pytest.mark.parametrize(
    "holder",
    [
        (ONE, TWO), [ONE, [3, None, TWO]], {"a": ONE, "b": TWO}, OrderedDict(a=ONE, b=(TWO,)), UserDict(a=ONE, b=TWO),
        deque([ONE, TWO]), Pair(ONE, TWO), Slotted(ONE, [TWO]), Own(ONE, {"b": TWO}), [Own(Slotted(ONE, "x"), TWO)],
    ],
)  # fmt: skip
def test_tensors_are_found_in_order(holder):
    found = tensors_in(holder)
    assert [id(one) for one in found] == [id(ONE), id(TWO)]


def test_one_tensor_is_itself_and_a_tensor_given_twice_is_found_twice():
    assert tensors_in(ONE)[0] is ONE
    assert len(tensors_in((ONE, ONE))) == 2


@pytest.mark.parametrize("nothing", [None, 3, "words", nn.Linear(1, 1), Own, torch.float32, print, tensors_in])
def test_nothing_is_found_where_nothing_is_given(nothing):
    assert tensors_in(nothing) == []
