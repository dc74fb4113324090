"""Pondered: how many blocks of each stage every sample or position of some inputs passes."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.parts.blocks.block import blocks_in
from cortado.parts.blocks.ponder import Ponder
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device


def ponder_maps(network: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """Return how many blocks of each stage places pass, by path: whole numbers (samples,), or (samples, height, width).

    >>> passed = ponder_maps(network, pictures)["layer3"]

    Raises BadNetwork for a network without stages that halt.
    """
    stages = [(path, block) for path, block in blocks_in(network) if isinstance(block, Ponder)]
    if not stages:
        raise BadNetwork("ponder_maps: no stage of the network halts. Use conditional/ponder first.")
    with eval_mode(network), torch.no_grad():
        call(network, to_device(inputs, own_device(network)))
    found = {}
    for path, block in stages:
        choices: Any = block.ponder_choices
        ran = [choose.ran.rows for choose in choices]
        found[path] = 1 + torch.stack(ran).sum(0).cpu()
    return found
