"""Meeting: where peers exchange values: within one process, or between processes, one peer in each."""

from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType

import torch
from torch import Tensor, distributed, nn

from cortado.errors import BadValue, Failed, describe
from cortado.training.distributed import ranks


class Meeting:
    """The peers' connections.  `here`: the numbers of the peers in this process: all of them, or the process's rank."""

    def __init__(self, peers: int, device: torch.device, wait: float, label: str) -> None:
        """`wait`: after so many seconds without an answer, a process is lost.  Raises BadValue, Failed."""
        self.label, self.wait, self.sent = label, wait, 0
        rank, world = ranks(device)
        if world not in (1, peers):
            raise BadValue(
                f"{label}: peers must be the number of processes, got {peers} peers and {world} processes. "
                f"Set peers: {world}, or start {peers}."
            )
        self.here = range(peers) if world == 1 else range(rank, rank + 1)
        self.group = None
        if world > 1:
            try:
                # Messages lie on the CPU, where a lost process is noticed.
                self.group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=wait))
            except RuntimeError as error:
                raise self.lost("at the start", error) from error

    def __enter__(self) -> "Meeting":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.group is not None:
            distributed.destroy_process_group(self.group)

    def share(self, values: Sequence[Tensor], owner: int, done: int | None = None) -> None:
        """Give these tensors the values that peer `owner` has in them, in every process.

        Raises Failed, naming the step, if a process is lost or does not answer in time.
        """
        if self.group is None:
            return
        message = as_bytes(values)
        try:
            distributed.broadcast(message, owner, group=self.group)
        except RuntimeError as error:
            raise self.lost("after the last step" if done is None else f"after step {done}", error) from error
        if owner in self.here:
            self.sent += len(message)
        else:
            write_bytes(values, message)

    def lost(self, when: str, error: RuntimeError) -> Failed:
        """Return the error for a lost process."""
        return Failed(
            f"{self.label}: a peer was lost {when}: its process ended, or gave no answer for {self.wait:g} s "
            f"({describe(error)}). Read that process's own error, start all processes again, and continue with resume."
        )


def values_of_network(network: nn.Module) -> list[Tensor]:
    """Return a network's parameters and buffers, without gradients, in order."""
    return [one.detach() for one in (*network.parameters(), *network.buffers())]


def as_bytes(values: Sequence[Tensor]) -> Tensor:
    """Return the bytes of all tensors, one after the other, on the CPU."""
    return torch.cat([one.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for one in values])


def write_bytes(values: Sequence[Tensor], message: Tensor) -> None:
    """Write bytes made by `as_bytes` into tensors of the same types and shapes."""
    sizes = [one.numel() * one.element_size() for one in values]
    for place, part in zip(values, message.split(sizes), strict=True):
        # A copy has an address that its type needs.
        place.copy_(part.clone().view(place.dtype).view(place.shape))
