"""Every method works after and before every other."""

import itertools

import pytest
import torch

from cortado.compress import compress
from cortado.errors import BadNetwork, NothingChanged
from cortado.file.artifact import decode, encode
from cortado.network.view import parameter_places
from tests.laws.compressed import CUTS, FINDS_WORK_IN, TAKES_SIGNS
from tests.laws.small_methods import ALL_METHODS, small
from tests.laws.tiny_nets import BY_NAME

IDLE = {
    "prune/units",
    "rewind",
    "simplify/norms",
    "release",
    "settle",
    "quantize/equalize",
}
"""May find nothing to do beside another method; then they must say just that."""


FEW = 2
"""So many values in a layer are left as they are by each method that shares or rounds them anew."""


def fewest_values(tiny, first):
    """How many values the layer with fewest has after a method alone."""
    made, _ = compress(tiny.make(), tiny.task(), [small(first)])
    return min(len(weight.dense().unique()) for weight in parameter_places(made) if len(weight.shape) > 1)


def nets_for(order):
    """The networks in which both methods find work; those for signs where one of them wants such."""
    wanted = ("signed",) if set(order) & set(TAKES_SIGNS) else ("residual", "attention")
    return [net for net in wanted if all(net in FINDS_WORK_IN.get(name, BY_NAME) for name in order)]


ORDERS = list(itertools.permutations(ALL_METHODS, 2))
TRIED = [(*order, nets[turn % len(nets)]) for turn, order in enumerate(ORDERS) if (nets := nets_for(order))]
"""Each order on one network, in turn: all on each would take longer than the rest of the suite."""


@pytest.mark.parametrize(("first", "second", "net"), TRIED)
def test_methods_work_one_after_the_other(first, second, net):
    tiny = BY_NAME[net]
    plain = tiny.make()
    try:
        made, report = compress(plain, tiny.task(), [small(first), small(second)])
    except NothingChanged as error:
        if f"({second})" in str(error) and fewest_values(tiny, first) <= FEW:
            return
        assert any(f"({name})" in str(error) for name in IDLE), error
        return
    except BadNetwork as error:
        # What was cut away has no place for its old values.
        assert second == "rewind" and first in CUTS and "no first values" in str(error)
        return
    assert len(report.stages) == 2
    assert bool(torch.isfinite(made(tiny.example)).all())
    again = decode(encode(made, plain), tiny.maker)
    assert torch.equal(again(tiny.example), made(tiny.example))
