"""Together: several processes that train one network, under torchrun."""

import os
from typing import Any

import torch
from torch import distributed, nn


def ranks(device: torch.device) -> tuple[int, int]:
    """This process's number and how many train together (under torchrun; else 0 of 1)."""
    if not distributed.is_available() or "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def share_start(network: nn.Module, world: int) -> None:
    """All processes begin with the first one's values."""
    for value in network.state_dict().values() if world > 1 else ():
        distributed.broadcast(value, 0)


def share_statistics(network: nn.Module, world: int) -> None:
    """Every process saw its own part of the data: running statistics become the mean of all, equal to the last bit."""
    if world > 1:
        for value in network.buffers():
            if value.is_floating_point():
                distributed.all_reduce(value)
                value /= world
        share_start(network, world)


def shard(inputs: Any, rank: int, world: int) -> Any:
    return tuple(part[rank::world] for part in inputs) if isinstance(inputs, tuple) else inputs[rank::world]


def average_gradients(network: nn.Module, world: int) -> None:
    for parameter in network.parameters() if world > 1 else ():
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= world
