"""States: what the methods leave in a network, one of each kind, for a second method to meet."""

from dataclasses import dataclass

from cortado.methods.method import Method
from tests.laws.compressed import FINDS_WORK_IN
from tests.laws.small_methods import ALL_METHODS, small
from tests.laws.tiny_nets import BY_NAME


@dataclass(frozen=True)
class State:
    """The stages that make it, and the networks on which a second method is tried: the first one in which it finds work."""

    stages: tuple[Method, ...]
    nets: tuple[str, ...] = ("residual", "attention", "signed", "decoder")

    def net_for(self, method: str) -> str | None:
        """Return the network on which the second method meets this state, or None where it finds no work in any."""
        fitting = [net for net in self.nets if net in FINDS_WORK_IN.get(method, BY_NAME)]
        return next(iter(fitting), None)


MASK = small("prune/weights", keep=0.4)
STATES = {
    "dense": State((small("finetune"),)),
    "masked": State((MASK,)),
    "codebook": State((small("share/kmeans", bits=3),)),
    "quantized": State((small("quantize/weights", bits=4),)),
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
    "a removed block": State((small("prune/blocks"),), ("attention",)),
    "an activation quantizer": State((small("quantize/activations"),)),
    "signs of activations": State((small("quantize/xnor"),), ("signed",)),
    "a folded norm": State((small("simplify/norms"),), ("residual", "signed")),
    "tied weights": State((MASK,), ("tied",)),
}
MEETINGS = [(state, second) for state in STATES for second in ALL_METHODS if STATES[state].net_for(second)]
