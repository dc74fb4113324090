"""Finalize: replace weights and activation quantizers that round at every training step by their final values."""

import copy

from torch import nn

from cortado.parts.activations.quantizer import ActivationQuantizer, finalize_quantizers
from cortado.parts.forms.attach import finalize_forms as finalize_weights
from cortado.parts.forms.latent import Latent


def finalize(network: nn.Module) -> None:
    """Finalize all parts of a network, in place."""
    finalize_weights(network)
    finalize_quantizers(network)


def in_training(network: nn.Module) -> bool:
    """Return whether some weight or activation is still rounded at every step."""
    return any(
        isinstance(module, Latent) or (isinstance(module, ActivationQuantizer) and module.finalize() is not module)
        for module in network.modules()
    )


def finalized_copy(network: nn.Module) -> nn.Module:
    """Return the network itself if it has nothing to finalize, otherwise a finalized copy."""
    if not in_training(network):
        return network
    made = copy.deepcopy(network)
    finalize(made)
    return made
