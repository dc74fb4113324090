"""Sharded: a copy of a network whose parameters are split over the processes, for networks that do not fit into one."""

import copy

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from cortado.layers.factors import factored_copy
from cortado.parts.part import is_list


class ShardedCopy:
    """Runs as the network; each child that has parameters is whole only while it runs.  Zhao et al., 2023 (FSDP).

    The network itself stays where it is, and `gather` writes the trained values into it.
    """

    def __init__(self, network: nn.Module, device: torch.device, world: int) -> None:
        """Start from the values of the first process."""
        # Parameters that are split must be contiguous.
        self.network, self.copy = network, copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for value in (*self.copy.parameters(), *self.copy.buffers()):
            distributed.broadcast(value.detach(), 0)
        self.runner = factored_copy(self.copy)
        owners = {id(one): own for one, own in zip(self.copy.parameters(), network.parameters(), strict=True)}
        self.owners = [owners[id(one)] for one in self.runner.parameters()]
        mesh = init_device_mesh(device.type, (world,))
        for child in units_of(self.runner):
            fully_shard(child, mesh=mesh)
        fully_shard(self.runner, mesh=mesh)

    def gather(self) -> None:
        """Write the values of all processes into the network."""
        with torch.no_grad():
            for owner, part in zip(self.owners, self.runner.parameters(), strict=True):
                owner.copy_(part.full_tensor())  # type: ignore[attr-defined]
            for own, buffer in zip(self.network.buffers(), self.copy.buffers(), strict=True):
                own.copy_(buffer)


def units_of(network: nn.Module) -> list[nn.Module]:
    """Return the children that are gathered one by one: those with parameters, lists by their entries."""
    found: list[nn.Module] = []
    for child in network.children():
        if is_list(child):
            found += units_of(child)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return list(dict.fromkeys(found))
