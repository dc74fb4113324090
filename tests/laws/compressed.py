"""What a method makes of a tiny network, made once for all laws."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from cortado.engine.compress import compress
from cortado.errors import BadTask
from cortado.methods.needs import Leaves
from cortado.report.report import Report
from tests.laws.asked import FINDS_WORK, asked_of, leaves, stages
from tests.laws.small_methods import ALL_METHODS
from tests.laws.tiny_nets import BY_NAME, DECODER, FLAT, SIGNED, TINY_NETS

TRIED_ON = tuple(net.name for net in TINY_NETS)
NETS = {name: (*TRIED_ON, SIGNED.name) if leaves(name, Leaves.SIGNS) else TRIED_ON for name in ALL_METHODS}
NETS |= {name: (*NETS[name], DECODER.name) for name in ALL_METHODS if asked_of(name, TRIED_ON[0]).error is BadTask}
NETS |= {name: (*NETS[name], FLAT.name) for name in ALL_METHODS if leaves(name, Leaves.COMPACT)}
PAIRS = [(name, net) for name in ALL_METHODS for net in NETS[name] if asked_of(name, net) == FINDS_WORK]
IDLE_PAIRS = [(name, net) for name in ALL_METHODS for net in NETS[name] if (name, net) not in PAIRS]


@dataclass(frozen=True)
class Result:
    """A network before and after, and what was reported; `before` is the state that it had at first.

    `random` is the random state of the caller before the run and after it.
    """

    original: nn.Module
    before: dict[str, Tensor]
    small: nn.Module
    report: Report
    random: tuple[Tensor, Tensor]


@cache
def compressed(name: str, net: str) -> Result:
    """The method called `name` on the tiny network `net`."""
    original = BY_NAME[net].make()
    before = {key: value.clone() for key, value in original.state_dict().items()}
    random = torch.random.get_rng_state()
    made, report = compress(original, BY_NAME[net].task(), stages(name))
    return Result(original, before, made, report, (random, torch.random.get_rng_state()))
