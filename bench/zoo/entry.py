"""Entry: one network of the zoo - how it is made, what it is run on - with random weights in which no path is dead."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LOW, HIGH = 0.3, 10.0
"""Standard deviations of a layer's outputs between which its weight is left as it was drawn."""


@dataclass(frozen=True)
class Entry:
    """A network by name, its family, its maker and its inputs.

    `inputs` are shapes without the batch: floats; a shape given as (length, limit, "whole") is whole numbers below limit.
    """

    name: str
    family: str
    make: Callable[[], nn.Module]
    inputs: tuple[tuple[Any, ...], ...]

    def example(self, seed: int = 0, batch: int = 2) -> Any:
        """Random inputs: a tensor, or a tuple of tensors where the network takes several."""
        generator = torch.Generator().manual_seed(seed)
        made = tuple(drawn(shape, batch, generator) for shape in self.inputs)
        return made[0] if len(made) == 1 else made

    def network(self, seed: int = 0) -> nn.Module:
        """The network in eval mode, its weights drawn from `seed`."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            network = self.make().eval().requires_grad_(True)
            enliven(network)
            carry_signal(network, self.example(seed + 1, batch=8))
        return network


def drawn(shape: tuple[Any, ...], batch: int, generator: torch.Generator) -> Tensor:
    """One input with its batch."""
    if shape[-1] == "whole":
        *sizes, limit, _ = shape
        return torch.randint(limit, (batch, *sizes), generator=generator)
    return torch.randn(batch, *shape, generator=generator)


def enliven(network: nn.Module) -> None:
    """Draw again what would hide a wrong cut: constant gains and biases, layer scales near zero, heads that begin at zero.

    A path that gives zero stays equal whatever is cut from it. Batch-norm statistics are drawn by `carry_signal`.
    """
    with torch.no_grad():
        for value in network.parameters():
            if not value.is_floating_point() or value.numel() == 0:
                continue
            flat = value.dim() < 2 or value.numel() == max(value.shape)
            still = value.numel() > 1 and float(value.std()) < 1e-4
            if flat and float(value.mean()) > 0.5:
                value.uniform_(0.5, 1.5)
            elif flat:
                value.normal_(0, 0.3)
            elif still:
                value.normal_(0, value[0].numel() ** -0.5)


def within_channels(activation: Tensor, axis: int) -> Tensor:
    """The variance of each channel over all other axes."""
    return activation.transpose(0, axis).flatten(1).var(1)


def carry_signal(network: nn.Module, example: Any) -> None:
    """Let the activation neither fade nor burst on its way, by one run on `example`.

    Fresh weights of a deep network often give outputs that hardly depend on the inputs, and then a wrong cut of an early
    layer would not show. Weights whose layer's outputs are far from unit size are scaled, and batch norms are given the
    statistics of their inputs, a little off.
    """
    done: set[int] = set()

    def scale(layer: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        size = float(within_channels(output, -1 if isinstance(layer, nn.Linear) else 1).mean().sqrt())
        if id(layer.weight) in done or not 1e-12 < size < 1e12 or LOW < size < HIGH:
            return None
        done.add(id(layer.weight))
        layer.weight /= size
        return layer(*arguments)

    def finalize(norm: nn.Module, arguments: Any) -> None:
        activation = arguments[0]
        if norm.running_mean is not None and id(norm) not in done:
            done.add(id(norm))
            means = activation.transpose(0, 1).flatten(1).mean(1)
            own = within_channels(activation, 1)
            spread = own + activation.var() + 1e-3
            norm.running_mean.copy_(means + 0.1 * spread.sqrt() * torch.randn_like(spread))
            norm.running_var.copy_(spread * (0.5 + torch.rand_like(spread)))

    hooks = []
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            hooks.append(layer.register_forward_pre_hook(finalize))
        elif isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            hooks.append(layer.register_forward_hook(scale))
    with torch.no_grad():
        network(*example) if isinstance(example, tuple) else network(example)
    for hook in hooks:
        hook.remove()
