"""Distributed: train one network in several processes, under torchrun."""

import os
from typing import Any

import torch
from torch import distributed, nn


def ranks(device: torch.device) -> tuple[int, int]:
    """Return this process's rank and the world size (0 and 1 outside torchrun)."""
    if not distributed.is_available() or "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def share_start(network: nn.Module, world: int) -> None:
    """Broadcast the first process's values to all."""
    for value in network.state_dict().values() if world > 1 else ():
        distributed.broadcast(value, 0)


def share_statistics(network: nn.Module, world: int) -> None:
    """Average running statistics over all processes, which each saw their own shard; equal to the last bit afterwards."""
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
