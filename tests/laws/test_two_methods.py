"""Every method works after and before every other."""

import contextlib
import copy
import itertools
from functools import lru_cache

import torch

from cortado.engine.compress import Run, compress
from cortado.engine.recipe import read_recipe
from cortado.engine.stage import begin
from cortado.errors import BadNetwork, NothingChanged
from cortado.file.artifact import decode, encode
from cortado.network.view import parameter_places, working_copy
from tests.laws.compressed import CUTS, FINDS_WORK_IN, TAKES_SIGNS
from tests.laws.small_methods import ALL_METHODS, small
from tests.laws.tiny_nets import BY_NAME

IDLE = {
    "prune/units",
    "rewind",
    "simplify/norms",
    "release",
    "finalize",
    "quantize/equalize",
}
"""May find nothing to do beside another method; then they must say just that."""


IDLE_AFTER = {
    ("factorize/predict", "quantize/second_order"),
    ("factorize/predict", "quantize/adaround"),
    ("quantize/ptq_search", "quantize/weights"),
    ("quantize/adaround", "quantize/second_order"),
    ("quantize/second_order", "quantize/adaround"),
}
"""Orders in which the second may find nothing left: all in low rank, or on its own grid already.

The PTQ search ends on the grid of 8 bits where the processor has VNNI, and with 7 where it has not.
"""
FEW = 16
"""So many values a layer, or fewer, are left as they are by a method that would share or round to no fewer."""


def most_values(network):
    """How many values the layer with most has, first and last one (of 8 bits often) left out."""
    weights = [weight for weight in parameter_places(network) if len(weight.shape) > 1]
    return max(len(weight.dense().unique()) for weight in weights[1:-1] or weights)


def nets_for(order, every=False):
    """The networks in which both methods find work; those for signs where one of them wants such. Two at most, or every."""
    signs = bool(set(order) & set(TAKES_SIGNS))
    wanted = tuple(BY_NAME) if every else ("signed",) if signs else ("residual", "attention")
    return [net for net in wanted if all(net in FINDS_WORK_IN.get(name, BY_NAME) for name in order)]


ORDERS = list(itertools.permutations(ALL_METHODS, 2))
PRESETS_TRIED = [(*order, nets[turn % len(nets)]) for turn, order in enumerate(ORDERS) if (nets := nets_for(order))]
"""Each order on one network, in turn: all on each, with --all-networks, take longer than the rest of the suite."""


def pytest_generate_tests(metafunc):
    if "second" in metafunc.fixturenames:
        everywhere = [(*order, net) for order in ORDERS for net in nets_for(order, every=True)]
        chosen = everywhere if metafunc.config.getoption("--all-networks") else PRESETS_TRIED
        # Side by side those that begin alike: what the first stage makes is kept.
        chosen = sorted(chosen, key=lambda one: (ALL_METHODS.index(one[0]), one[2]))
        metafunc.parametrize(("first", "second", "net"), chosen)


@lru_cache(maxsize=6)
def begun(first, net, matched):
    """A run after its first stage, from which all seconds start; with moments matched unless the second does just that."""
    tiny = BY_NAME[net]
    recipe = read_recipe((small(first), small("quantize/weights" if matched else "match_moments")))
    run = Run(working_copy(tiny.make()).eval(), tiny.task(), recipe)
    return run, run.stage(begin(run.original, tiny.example), 0)


def after_both(first, second, net):
    """The networks before and after, as compress makes them, and the report."""
    run, state = copy.deepcopy(begun(first, net, second != "match_moments"))
    run.recipe = read_recipe((small(first), small(second)))
    made = run.stage(state, 1).network
    return run.original, made, run.report(made, 0.0)


def test_methods_work_one_after_the_other(first, second, net):
    tiny = BY_NAME[net]
    try:
        original, made, report = after_both(first, second, net)
    except NothingChanged as error:
        anew = second.startswith(("share/", "quantize/")) and f"({second})" in str(error)
        if anew and most_values(begun(first, net, True)[1].network) <= FEW:
            return
        assert any(f"({name})" in str(error) for name in IDLE) or (first, second) in IDLE_AFTER, error
        return
    except BadNetwork as error:
        # What was cut away has no place for its old values.
        assert second == "rewind" and first in CUTS and "no initial values" in str(error)
        return
    assert len(report.stages) == 2
    assert bool(torch.isfinite(made(tiny.example)).all())
    again = decode(encode(made, original), tiny.maker)
    assert torch.equal(again(tiny.example), made(tiny.example))


def test_run_from_a_kept_first_stage_is_the_run_of_both():
    """Whatever is kept of the first stage: the file is to the byte what compress makes of both stages."""
    for first, second, net in PRESETS_TRIED[:: len(PRESETS_TRIED) // 12]:
        with contextlib.suppress(NothingChanged, BadNetwork):
            original, made, _ = after_both(first, second, net)
            whole, _ = compress(original, BY_NAME[net].task(), [small(first), small(second)])
            assert encode(made, original) == encode(whole, original)
