"""Synthetic: calibration samples generated from a network alone, without data."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadTask
from cortado.layers.norm import is_batch_norm
from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import call_with, device_of
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.data import Data

LR = 0.1


def synthetic(network: nn.Module, example: Any, count: int, steps: int, seed: int, batch: int = 32) -> Data:
    """Return `count` samples of the example's shape for which each batch norm's input has its stored moments.

    ZeroQ (Cai et al., 2020): Adam changes normal noise until the mean and deviation of every norm's input match those
    of the training data. A network without batch norms gets the noise itself. Raises BadTask for inputs that are not
    floats.
    """
    if not isinstance(example, Tensor) or not example.is_floating_point():
        raise BadTask(
            "quantize: synthetic samples need a network that reads one float tensor. Pass calibration data instead."
        )
    generator, found = torch.Generator().manual_seed(seed), []
    norms = [m for m in network.modules() if is_batch_norm(m)]
    for start in range(0, count, batch):
        drawn = torch.randn((min(batch, count - start), *example.shape[1:]), generator=generator)
        samples = to_device(drawn, device_of(network))
        found.append((optimized_samples(network, norms, samples, steps) if norms else samples).cpu())
    return Data(torch.cat(found), torch.zeros(count, dtype=torch.long))


def optimized_samples(network: nn.Module, norms: list[Any], samples: Tensor, steps: int) -> Tensor:
    """Return a batch of samples, optimized to match the norms."""
    samples = samples.clone().requires_grad_(True)
    optimizer, terms = torch.optim.Adam([samples], LR), list[Tensor]()

    def far(norm: Any, activation: Tensor) -> None:
        axes = [axis for axis in range(activation.dim()) if axis != 1]
        spread = (norm.running_var + norm.eps).sqrt()
        mean, deviation = activation.mean(axes), (activation.var(axes, unbiased=False) + norm.eps).sqrt()
        terms.append((((mean - norm.running_mean) / spread) ** 2 + (deviation / spread - 1) ** 2).mean())

    hooks = [before_call(norm, far) for norm in norms]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        with eval_mode(network), torch.enable_grad():
            for _ in range(steps):
                terms.clear()
                call_with(network, samples)
                optimizer.zero_grad(set_to_none=True)
                torch.stack(terms).sum().backward()
                optimizer.step()
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for hook in hooks:
            hook.remove()
    return samples.detach()
