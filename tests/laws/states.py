"""States: what the methods leave in a network, one of each kind, for a second method to meet."""

from dataclasses import dataclass

from cortado.methods.method import Method
from tests.laws.asked import FINDS_WORK, asked_of
from tests.laws.small_methods import ALL_METHODS, small


@dataclass(frozen=True)
class State:
    """The stages that make it, and the networks on which a second method may be tried."""

    stages: tuple[Method, ...]
    nets: tuple[str, ...] = ("residual", "attention", "signed", "decoder", "mlp", "flat")

    def net_for(self, method: str) -> str:
        """Return the network on which the second method meets this state: the first in which it finds work, if there is one."""
        return next((net for net in self.nets if asked_of(method, net) == FINDS_WORK), self.nets[0])


MASK = small("prune/weights", keep=0.4)
STATES = {
    "dense": State((small("finetune"),)),
    "masked": State((MASK,)),
    "codebook": State((small("share/kmeans", bits=3),)),
    "quantized": State((small("quantize/weights", bits=4),)),
    "trellis": State((small("quantize/trellis"),)),
    "masked(trellis)": State((MASK, small("quantize/trellis", by="weight"))),
    "coded by loss and bits": State((small("quantize/rate_distortion"),)),
    "low rank": State((small("factorize/svd", keep=0.5),)),
    "product quantized": State((small("share/products"),)),
    "latent: learned step": State((small("quantize/aware", bits=4),)),
    "latent: binary": State((small("quantize/binary_connect"),)),
    "latent: clipped": State((small("quantize/clip"),)),
    "latent: squashed": State((small("quantize/dorefa"),)),
    "latent: ternary": State((small("quantize/ternary"),)),
    "masked(quantized)": State((MASK, small("quantize/weights", bits=4))),
    "masked(codebook)": State((MASK, small("share/kmeans", bits=3))),
    "a cut": State((small("prune/channels"),)),
    "a removed block": State((small("prune/blocks"),), ("attention", "chained")),
    "an activation quantizer": State((small("quantize/activations"),)),
    "signs of activations": State((small("quantize/xnor"),), ("signed",)),
    "gates": State((small("conditional/gates"),), ("attention", "chained")),
    "a folded norm": State((small("simplify/norms"),), ("residual", "signed")),
    "compact layers": State(
        (small("compact/groups", where="first"), small("compact/squeeze", where="second")), ("residual",)
    ),
    "a pooled head": State((small("compact/global_pooling"),), ("flat",)),
    "experts": State((small("conditional/experts"),), ("mlp",)),
    "samples that halt": State((small("conditional/ponder"),), ("attention", "chained")),
    "negated filters": State((small("transfer/negate"),), ("residual", "chained", "flat")),
    "turned filters": State((small("transfer/rotate"),), ("residual", "chained")),
    "tied weights": State((MASK,), ("tied",)),
    "a student": State((small("student", network="tests.laws.tiny_nets:Depthwise"), small("finetune")), ("residual",)),
    "an early exit": State((small("conditional/exits", at="stem"),), ("residual",)),
    "a cascade": State((small("conditional/cascade", members=["tests.laws.tiny_nets:Depthwise"]),), ("residual",)),
}
MEETINGS = [(state, second) for state in STATES for second in ALL_METHODS]
HALF = [pair for pair in MEETINGS if (list(STATES).index(pair[0]) + ALL_METHODS.index(pair[1])) % 2 == 0]
"""A chessboard of them: each method meets every other state, and each state every other method."""
