"""Traffic: the hooks that average gradients over processes, and the bytes that each process gives to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.futures import Future

from cortado.training.ternary_gradients import TernaryState, ternary_hook

FLOAT32_BYTES = 4
Hook = Callable[[Any, distributed.GradBucket], Future[Tensor]]


@dataclass
class Traffic:
    """Bytes of gradients: of this process's messages, and what the same gradients take as float32.

    A message counts once, whatever the network then does with it: a ring sends a sum of N processes 2 (N - 1) / N times, and
    gathers N ternary messages by N - 1 sends each. So what `ternary` saves on the wires falls as processes are added.
    """

    sent: int = 0
    as_float32: int = 0

    def notes(self) -> list[str]:
        """Return a note for the report; none where nothing was sent."""
        if not self.as_float32:
            return []
        return [f"{bytes_text(self.sent)} of gradients sent by each process, {bytes_text(self.as_float32)} as float32"]


def bytes_text(count: int) -> str:
    """Return "12.3 MB", or "812 bytes" for few."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


class CountedHook:
    """A communication hook of `DistributedDataParallel` that adds to the traffic what it sends."""

    def __init__(self, traffic: Traffic, hook: Hook, state: Any, size: Callable[[distributed.GradBucket], int]) -> None:
        """`size(bucket)`: the bytes of one message, called after the hook; `state` is the hook's own."""
        self.traffic, self.hook, self.state, self.size = traffic, hook, state, size

    def average(self, state: object, bucket: distributed.GradBucket) -> Future[Tensor]:
        """Average the gradients of a bucket over the processes, and count."""
        self.traffic.as_float32 += FLOAT32_BYTES * bucket.buffer().numel()
        future = self.hook(self.state, bucket)
        self.traffic.sent += self.size(bucket)
        return future


def counted_hook(name: str, traffic: Traffic, device: torch.device, rank: int, world: int) -> CountedHook:
    """Return the hook of a name in `Training.hook`."""
    if name == "ternary":
        ternary = TernaryState.of(device, rank, world)
        return CountedHook(traffic, ternary_hook, ternary, GrownBy(lambda bucket: ternary.sent))
    if name == "powersgd":
        return counted_powersgd(traffic)
    each = {"fp16": 2, "bf16": 2}
    hooks: dict[str, Hook] = {
        "none": default_hooks.allreduce_hook,
        "fp16": default_hooks.fp16_compress_hook,
        "bf16": default_hooks.bf16_compress_hook,
    }
    return CountedHook(
        traffic, hooks[name], None,
        lambda bucket: bucket.buffer().numel() * each.get(name, bucket.buffer().element_size()),
    )  # fmt: skip


def counted_powersgd(traffic: Traffic) -> CountedHook:
    """Return PowerSGD's hook, which sends whole gradients in its first steps.  Vogels et al., 2019."""
    state = powerSGD_hook.PowerSGDState(None)
    compressed = GrownBy(lambda bucket: state.total_numel_after_compression * bucket.buffer().element_size())

    def size(bucket: distributed.GradBucket) -> int:
        grown = compressed(bucket)
        return grown or bucket.buffer().numel() * bucket.buffer().element_size()

    return CountedHook(traffic, powerSGD_hook.powerSGD_hook, state, size)


class GrownBy:
    """By how much a count has grown since the last call."""

    def __init__(self, count: Callable[[distributed.GradBucket], int]) -> None:
        self.count, self.before = count, 0

    def __call__(self, bucket: distributed.GradBucket) -> int:
        now = self.count(bucket)
        grown, self.before = now - self.before, now
        return grown
