"""Execution: for what share of the samples each block runs what it keeps inside."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cortado.parts.blocks.block import Block, blocks_in
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device


def execution_shares(network: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Return, for each block that decides per sample, the share of samples that ran what is inside, by path; in eval mode.

    `batches` yields inputs. A block that runs several times in one pass counts each time. Blocks that always run are left
    out.
    """
    blocks = blocks_in(network)
    ran: dict[str, list[torch.Tensor]] = {}

    def note(path: str, block: Block) -> Any:
        def hook(*_: Any) -> None:
            found = block.execution().ran
            if found is not None:
                ran.setdefault(path, []).append(found.detach().float().cpu().reshape(-1))

        return block.register_forward_hook(hook)

    handles = [note(path, block) for path, block in blocks]
    try:
        with eval_mode(network):
            for inputs in batches if blocks else ():
                call(network, to_device(inputs, own_device(network)))
    finally:
        for handle in handles:
            handle.remove()
    return {path: float(torch.cat(found).mean()) for path, found in ran.items()}


def inside_of(network: nn.Module, shares: dict[str, float]) -> dict[int, float]:
    """Return the share of samples that runs each module inside blocks, by id: the product of the blocks around it."""
    found: dict[int, float] = {}
    for path, block in blocks_in(network):
        for module in block.runs_at_times() if path in shares else ():
            found[id(module)] = found.get(id(module), 1.0) * shares[path]
    return found
