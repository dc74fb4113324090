"""Left: what methods have left in a network, found in its parts."""

from torch import nn

from cortado.methods.needs import Leaves
from cortado.network.finalize import in_training
from cortado.network.weight import parameter_places
from cortado.parts.activations.quantizer import sites
from cortado.parts.activations.sign import Sign
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.experts import Experts
from cortado.parts.blocks.fire_module import FireModule
from cortado.parts.blocks.gate import Gate
from cortado.parts.blocks.grouped import Grouped
from cortado.parts.blocks.ponder import Ponder
from cortado.parts.blocks.pooled_linear import PooledLinear
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.forms.attach import form_of
from tests.laws.still_there import kinds

COMPACT = (FireModule, Grouped, PooledLinear)
NO_CODES = {"Masked", "LowRank", "Transferred"}


def left_in(network: nn.Module, original: nn.Module) -> set[Leaves]:
    """Return what can be seen of methods in a network; floats are not seen, as moment matching moves them after others."""
    weights = parameter_places(network)
    forms = [form for weight in weights if (form := form_of(*weight.places[0])) is not None]
    shapes = {weight.path: weight.shape for weight in parameter_places(original)}
    rounded = {isinstance(quantizer, Sign) for quantizer in sites(network).values()}
    seen = {
        Leaves.ZEROS: any(form.support() is not None for form in forms),
        Leaves.CODES: any(kinds(form) - NO_CODES for form in forms if not in_training(form)),
        Leaves.LOW_RANK: any("LowRank" in kinds(form) for form in forms),
        Leaves.COPIES: any("Transferred" in kinds(form) for form in forms),
        Leaves.NARROWER: any(
            weight.shape.numel() < shapes[weight.path].numel() for weight in weights if weight.path in shapes
        ),
        Leaves.FEWER_BLOCKS: any(isinstance(module, Bypass) for module in network.modules()),
        Leaves.COMPACT: any(isinstance(module, COMPACT) for module in network.modules()),
        Leaves.FOLDED: any(isinstance(module, ScaleShift) for module in network.modules()),
        Leaves.GATES: any(isinstance(module, Gate) for module in network.modules()),
        Leaves.EXPERTS: any(isinstance(module, Experts) for module in network.modules()),
        Leaves.HALTING: any(isinstance(module, Ponder) for module in network.modules()),
        Leaves.ROUNDED: False in rounded,
        Leaves.SIGNS: True in rounded,
    }
    return {leaf for leaf, there in seen.items() if there}


def lost_forms(before: nn.Module, after: nn.Module) -> bool:
    """Return whether weights had zeros or codes of their form, and are plain floats."""
    floats = {weight.path for weight in parameter_places(after) if weight.form.only_floats}
    return any(not weight.form.only_floats and weight.path in floats for weight in parameter_places(before))
