"""Precision: run a network in float32, or its matrix products in bfloat16, in the memory layout that suits it."""

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.kinds import is_convolution
from cortado.running.call import call
from cortado.running.trees import map_tensors
from cortado.training.dilated import DilatedInFloat32


@dataclass(frozen=True)
class Precision:
    """How a network runs on a device.  `half`: matrix products in bfloat16; `cached`: keep bfloat16 weights within a step."""

    device: torch.device
    half: bool = False
    channels_last: bool = False
    cached: bool = True

    @classmethod
    def of(cls, network: nn.Module, asked: str, device: torch.device, recorded: bool) -> "Precision":
        """Return what suits a network in training."""
        half = half_precision(network, asked, device)
        slides = device.type == "cpu" and any(isinstance(module, nn.Conv2d) for module in network.modules())
        # Cached bfloat16 weights would be stale in a replay.
        return cls(device, half, half or slides, not recorded)

    def run(self, network: nn.Module, inputs: Any) -> Any:
        """Return a network's outputs, floats in float32."""
        context: Any = contextlib.nullcontext()
        if self.half:
            context = torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.cached)
        dilated = DilatedInFloat32() if self.half and self.device.type == "cpu" else contextlib.nullcontext()
        if self.channels_last and isinstance(inputs, Tensor) and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with context, dilated:
            outputs = call(network, inputs)
        return floats_in_float32(outputs)


def floats_in_float32(value: Any) -> Any:
    """Return a tree with its floats in float32."""
    return map_tensors(lambda one: one.float() if one.dtype in (torch.bfloat16, torch.float16) else one, value)


def half_precision(network: nn.Module, precision: str, device: torch.device, deep: int = 5) -> bool:
    """Return whether to run matrix products in bfloat16, which small convolutions do not gain from."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    weights = [m.weight.shape[0] for m in network.modules() if is_convolution(m) and m.weight.dim() > 3]  # type: ignore[union-attr]
    # For small convolutions, conversions cost more than bfloat16 saves.
    return (
        device.type == "cpu"
        and bool(weights)
        and max(weights) >= 32
        and len(weights) >= deep
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
