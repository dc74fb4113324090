"""CUDA graph: record a training step on a GPU once and replay it for every other batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, describe
from cortado.running.eval_mode import keeping_buffers

WARM_UP = 3
"""Warm-up steps before recording: libraries initialise and select their kernels in the first ones."""
Step = Callable[[Any, Tensor], Tensor]


class Recording:
    """Forward, loss and backward for batches of one shape.  A call returns the loss and leaves gradients in the parameters.

    Small networks are bound by kernel launches, and a replay launches all kernels at once. It repeats exactly what the
    GPU did: values that Python decided while recording (a branch, a step counter) do not change.
    """

    def __init__(self, step: Step, network: nn.Module, inputs: Any, targets: Tensor) -> None:
        """`step(inputs, targets)` runs forward and backward and returns the loss; `inputs` are a tensor or a tuple."""
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.inputs, self.targets = cloned(inputs), targets.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), keeping_buffers(network):
            for _ in range(WARM_UP):
                self.forget_gradients()
                step(self.inputs, self.targets)
        torch.cuda.current_stream().wait_stream(aside)
        self.forget_gradients()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = step(self.inputs, self.targets)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def forget_gradients(self) -> None:
        """Drop gradients so that the next backward pass allocates new ones, at a fixed address while recording."""
        for parameter in self.parameters:
            parameter.grad = None

    def fits(self, inputs: Any, targets: Tensor) -> bool:
        """Return whether a batch has the recorded shapes."""
        return shapes_of(inputs, targets) == shapes_of(self.inputs, self.targets)

    def __call__(self, inputs: Any, targets: Tensor) -> Tensor:
        for place, value in zip(step_parts(self.inputs), step_parts(inputs), strict=True):
            place.copy_(value, non_blocking=True)
        self.targets.copy_(targets, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss.clone()


def recorded(step: Step, network: nn.Module, inputs: Any, targets: Tensor) -> Recording:
    """Record a step.  Raises BadNetwork if a part of it runs on the CPU or synchronises with the GPU."""
    try:
        return Recording(step, network, inputs, targets)
    except RuntimeError as error:
        raise BadNetwork(
            f"finetune: a step of {type(network).__name__} cannot be recorded ({describe(error)}): a part of it runs on the "
            "CPU or waits for a value from the GPU. Set recorded: false."
        ) from error


def step_parts(inputs: Any) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def cloned(inputs: Any) -> Any:
    return tuple(part.clone() for part in inputs) if isinstance(inputs, tuple) else inputs.clone()


def shapes_of(inputs: Any, targets: Tensor) -> list[tuple[torch.Size, torch.dtype]]:
    return [(part.shape, part.dtype) for part in (*step_parts(inputs), targets)]
