"""Ternary gradients: send each gradient as -1, 0 or 1 times a scale, right on average.  Wen et al., 2017 (TernGrad)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.futures import Future

CLIP = 2.5
"""Gradients are clipped at so many standard deviations of their layer."""
PER_BYTE = 4
"""Ternary numbers in a byte, at 2 bits each."""


def clipped(gradient: Tensor) -> Tensor:
    """Return a gradient clipped at 2.5 standard deviations around 0.

    Around 0 rather than, as the authors' code, around the mean: a bias of one value, or of equal ones, keeps its gradient.
    """
    most = CLIP * gradient.square().mean().sqrt()
    return gradient.clamp(-most, most)


def drawn_signs(gradient: Tensor, scale: Tensor, generator: torch.Generator) -> Tensor:
    """Return -1, 0 or 1 (int8) for each value g: its sign with probability |g| / scale, else 0; the mean times `scale` is g.

    `scale` is at least the largest |g|, and is 0 only where all values are.
    """
    chance = gradient.abs() / scale.clamp_min(torch.finfo(gradient.dtype).tiny)
    draw = torch.rand(gradient.shape, generator=generator, device=gradient.device, dtype=gradient.dtype)
    return (gradient.sign() * (draw < chance)).to(torch.int8)


def packed_signs(signs: Tensor) -> Tensor:
    """Return numbers of -1, 0 and 1 (N,) at 2 bits each: bytes (ceil(N / 4),)."""
    codes = torch.nn.functional.pad((signs + 1).to(torch.uint8), (0, -len(signs) % PER_BYTE)).view(-1, PER_BYTE)
    return codes[:, 0] | codes[:, 1] << 2 | codes[:, 2] << 4 | codes[:, 3] << 6


def unpacked_signs(code_bytes: Tensor, count: int) -> Tensor:
    """Return the first `count` numbers of -1, 0 and 1 (int8) in bytes made by `packed_signs`."""
    codes = torch.stack([code_bytes >> shift & 3 for shift in (0, 2, 4, 6)], 1)
    return codes.flatten()[:count].to(torch.int8) - 1


@dataclass
class TernaryState:
    """The random draws of one process, the number of processes, and the bytes of this process's messages so far."""

    generator: torch.Generator
    world: int
    sent: int = 0

    @classmethod
    def of(cls, device: torch.device, rank: int, world: int) -> "TernaryState":
        """Return the state of a process; each process draws its own numbers, and the user's random state is left alone."""
        return cls(torch.Generator(device).manual_seed(rank), world)


def ternary_hook(state: TernaryState, bucket: distributed.GradBucket) -> Future[Tensor]:
    """Average the gradients of a bucket over the processes: each sends 2 bits a value and one scale a tensor.

    A communication hook of `DistributedDataParallel`. The scale of a tensor is the largest of all processes, so that sums of
    ternary numbers are whole numbers. Weights and biases are tensors of their own and all become ternary, however small, as by
    default in the authors' code: a bias of 16 values takes 4 bytes and its scale 4.
    """
    buffer = bucket.buffer()
    sizes = [one.numel() for one in bucket.gradients()]
    parts = [clipped(one) for one in buffer.split(sizes)]
    scales = torch.stack([one.abs().max() for one in parts])
    distributed.all_reduce(scales, distributed.ReduceOp.MAX)
    signs = [drawn_signs(one, scale, state.generator) for one, scale in zip(parts, scales, strict=True)]
    message = packed_signs(torch.cat(signs))
    state.sent += message.numel() + scales.numel() * scales.element_size()
    messages = [torch.empty_like(message) for _ in range(state.world)]
    distributed.all_gather(messages, message)
    total = torch.stack([unpacked_signs(one, len(buffer)) for one in messages]).sum(0, dtype=buffer.dtype)
    for place, part, scale in zip(buffer.split(sizes), total.split(sizes), scales, strict=True):
        place.copy_(part * (scale / state.world))
    return done_future(buffer)


def done_future(value: Tensor) -> Future[Tensor]:
    """Return a future that has its value already."""
    devices: Any = [value.device] if value.device.type == "cuda" else None
    future: Future[Tensor] = Future(devices=devices)
    future.set_result(value)
    return future
