"""Distributed: train one network in several processes, under torchrun."""

import os
import warnings
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cortado.running.trees import pick
from cortado.training.gathered import rows_of_all
from cortado.training.traffic import Traffic, counted_hook


class Processes:
    """The processes of a training: this one's rank, their number, and torch's wrapper that averages gradients."""

    def __init__(self, device: torch.device, hook: str = "none", *, alone: bool = False) -> None:
        """`hook` as in `Training`; `alone`: this process trains a network of its own, also under torchrun."""
        self.device, self.hook = device, hook
        self.rank, self.world = (0, 1) if alone else ranks(device)
        self.traffic = Traffic()

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are averaged over the processes; the module itself for one process.

        Everything that gets a gradient must be used in its forward pass. Parameters and buffers begin as those of rank 0.
        """
        if self.world == 1 or not any(one.requires_grad for one in module.parameters()):
            return module
        places = [self.device.index or 0] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # Newer versions of torch call this argument forward_sync_buffers.
            warnings.simplefilter("ignore", FutureWarning)
            made = DistributedDataParallel(module, places, broadcast_buffers=False, find_unused_parameters=True)
        hook = counted_hook(self.hook, self.traffic, self.device, self.rank, self.world)
        made.register_comm_hook(None, hook.average)
        return made

    def own_share(self, tree: Any) -> Any:
        """Return this process's samples of a batch: every world-th, from its rank on."""
        return tree if self.world == 1 else pick(tree, slice(self.rank, None, self.world))

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.world
        return value

    def gathered(self, rows: Tensor) -> Tensor:
        """Return the rows (N, ...) of all processes, through which gradients pass."""
        return rows if self.world == 1 else rows_of_all(rows)

    def average_statistics(self, network: nn.Module) -> None:
        """Average running statistics over the processes, which each saw their own share; equal to the last bit afterwards."""
        for value in network.buffers() if self.world > 1 else ():
            if value.is_floating_point():
                value.copy_(self.mean(value))
            distributed.broadcast(value, 0)


def ranks(device: torch.device) -> tuple[int, int]:
    """Return this process's rank and the number of processes (0 and 1 outside torchrun)."""
    if not distributed.is_available() or "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return distributed.get_rank(), distributed.get_world_size()
