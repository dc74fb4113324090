"""What a method makes of a tiny network, made once for all laws."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from cortado.engine.compress import compress
from cortado.methods.finetune import Finetune
from cortado.methods.method import Method
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.aware import QuantizeAware
from cortado.report.report import Report
from tests.laws.small_methods import ALL_METHODS, small
from tests.laws.tiny_nets import BY_NAME, TINY_NETS

CONVOLUTIONAL = ("residual", "depthwise")
TAKES_SIGNS = ("quantize/binary_net", "quantize/xnor", "quantize/compact_binary")
"""Methods that refuse networks in which a product reads what is never negative."""
FINDS_WORK_IN = {
    "simplify/norms": CONVOLUTIONAL,
    "prune/units": ("mlp", "residual", "depthwise"),
    "prune/heads": ("attention",),
    "prune/blocks": ("transformer", "attention"),
    "prune/positions": CONVOLUTIONAL,
    "quantize/equalize": ("mlp", "residual", "depthwise", "transformer", "attention"),
    "factorize/jaderberg": CONVOLUTIONAL,
    "factorize/cp": CONVOLUTIONAL,
    "factorize/tucker": CONVOLUTIONAL,
}
"""Methods that find nothing to do in some networks: those in which they do."""
FINDS_WORK_IN |= dict.fromkeys(TAKES_SIGNS, ("recurrent", "signed")) | {"distill/text": ("decoder",)}
CUTS = ("prune/channels", "prune/heads")
"""Methods that narrow the layers around those that they were told to take."""
TRIED_ON = tuple(net.name for net in TINY_NETS)
PAIRS = [(name, net) for name in ALL_METHODS for net in FINDS_WORK_IN.get(name, TRIED_ON)]
IDLE_PAIRS = [(name, net) for name in FINDS_WORK_IN for net in TRIED_ON if (name, net) not in PAIRS]
WHY_REFUSED = dict.fromkeys(TAKES_SIGNS, "the input of .* is never negative, so all its signs are the same")
WHY_REFUSED |= {"distill/text": "inputs must be token numbers"}
NOTHING_TO_DO = [(name, net) for name, net in IDLE_PAIRS if name not in WHY_REFUSED]
REFUSED = [(name, net) for name, net in IDLE_PAIRS if name in WHY_REFUSED]


def stages(name: str, **knobs: object) -> list[Method]:
    """The method, after what gives it something to do: trained weights to rewind, forms to release, empty places to sort by."""
    before: dict[str, list[Method]] = {
        "rewind": [Finetune(epochs=0.25)],
        "release": [PruneWeights()],
        "finalize": [QuantizeAware()],
        "prune/units": [PruneWeights(keep=0.3, by="random")],
    }
    return [*before.get(name, []), small(name, **knobs)]


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
