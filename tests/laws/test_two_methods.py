"""Every method works after every other: all orders on every tiny network, a long run by hand (pytest --all-pairs).

The quick law over the states that methods leave is tests/laws/test_states.py.
"""

import itertools

import pytest
import torch

from cortado.errors import BadNetwork, NothingChanged
from cortado.file.artifact import decode
from cortado.methods.needs import Leaves
from tests.laws.asked import FINDS_WORK, asked_of, leaves
from tests.laws.small_methods import ALL_METHODS, small
from tests.laws.tiny_nets import BY_NAME
from tests.laws.two_stages import after_both

ORDERS = [
    (first, second, net)
    for first, second in itertools.permutations(ALL_METHODS, 2)
    for net in BY_NAME
    if all(asked_of(name, net) == FINDS_WORK for name in (first, second))
]


@pytest.mark.parametrize(("first", "second", "net"), sorted(ORDERS, key=lambda one: (one[0], one[2])))
def test_methods_work_one_after_the_other(first, second, net):
    tiny = BY_NAME[net]
    try:
        two = after_both((small(first),), second, net)
    except NothingChanged as error:
        assert f"stage 1 ({first})" in str(error) or f"stage 2 ({second})" in str(error)
        return
    except BadNetwork as error:
        # What was cut away has no place for its old values.
        assert second == "rewind" and leaves(first, Leaves.NARROWER) and "no initial values" in str(error)
        return
    assert bool(torch.isfinite(two.made(tiny.example)).all())
    again = decode(two.body, tiny.maker)
    assert torch.equal(again(tiny.example), two.made(tiny.example))
