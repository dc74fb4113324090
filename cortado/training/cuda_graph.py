"""CUDA graph: record a training step on a GPU once and replay it for every other batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, describe
from cortado.running.eval_mode import keeping_buffers
from cortado.running.trees import map_tensors, tensors_in

WARM_UP = 3
"""Warm-up steps before recording: libraries initialise and select their kernels in the first ones."""
Work = Callable[[Any], dict[str, Tensor]]


class Recording:
    """Forward, loss and backward for batches of one shape.

    A call returns the loss with its terms and leaves gradients in the parameters.
    Small networks are bound by kernel launches, and a replay launches all kernels at once. It repeats exactly what the
    GPU did: values that Python decided while recording (a branch, a step counter) do not change.
    """

    def __init__(self, step: Work, network: nn.Module, batch: Any) -> None:
        """`step(batch)` runs forward and backward and returns the loss and its terms; `batch` is a tree of tensors."""
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.batch = map_tensors(lambda one: one.clone(), batch)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), keeping_buffers(network):
            for _ in range(WARM_UP):
                self.forget_gradients()
                step(self.batch)
        torch.cuda.current_stream().wait_stream(aside)
        self.forget_gradients()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.values = step(self.batch)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def forget_gradients(self) -> None:
        """Drop gradients so that the next backward pass allocates new ones, at a fixed address while recording."""
        for parameter in self.parameters:
            parameter.grad = None

    def fits(self, batch: Any) -> bool:
        """Return whether a batch has the recorded shapes."""
        return shapes_of(batch) == shapes_of(self.batch)

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        for place, value in zip(tensors_in(self.batch), tensors_in(batch), strict=True):
            place.copy_(value, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return {name: value.clone() for name, value in self.values.items()}


def recorded(step: Work, network: nn.Module, batch: Any) -> Recording:
    """Record a step.  Raises BadNetwork if a part of it runs on the CPU or synchronises with the GPU."""
    try:
        return Recording(step, network, batch)
    except RuntimeError as error:
        raise BadNetwork(
            f"finetune: a step of {type(network).__name__} cannot be recorded ({describe(error)}): a part of it runs on the "
            "CPU or waits for a value from the GPU. Set recorded: false."
        ) from error


def shapes_of(batch: Any) -> list[tuple[torch.Size, torch.dtype]]:
    return [(part.shape, part.dtype) for part in tensors_in(batch)]
