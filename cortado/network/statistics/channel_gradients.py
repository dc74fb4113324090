"""Channel gradients: the effect of closing units on outputs or loss, measured at the layers that consume them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.layers.kinds import is_matrix
from cortado.network.coupling.groups import Group, Slot
from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import device_of
from cortado.network.statistics.activations import channel_axis
from cortado.network.view import View
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import sample_count, to_device
from cortado.task.data import Data

SlopeOf = Callable[[Any, Any], Tensor]
"""(outputs, targets) -> a sum over samples to be differentiated."""


def consuming_layers(view: View, group: Group) -> list[tuple[Slot, nn.Module]]:
    """Return the linear and convolution layers that read a group's units as input channels."""
    modules = dict(view.network.named_modules(remove_duplicate=False))
    found = []
    for slot in group.of_role("consumer"):
        layer = modules[slot.layer]
        original = is_matrix(layer) and getattr(layer, "groups", 1) == 1
        if original and slot.axis == 1 and slot.names[0].endswith(".weight"):
            found.append((slot, layer))
    return found


def per_channel(layer: nn.Module, activation: Tensor) -> Tensor:
    """Return (samples, channels): the sums over all positions.  An activation without a batch axis is one sample."""
    axis = channel_axis(layer, activation)
    moved = activation.movedim(axis, 1) if axis else activation[None]
    return moved if moved.dim() == 2 else moved.flatten(2).sum(2)


class ChannelGradients:
    """Reads activations and their gradients at the consumers of some groups."""

    def __init__(self, view: View, groups: list[Group]) -> None:
        self.network = view.network
        self.places = [consuming_layers(view, group) for group in groups]
        self.groups = groups
        self.device = device_of(view.network) or torch.device("cpu")

    def known(self, number: int) -> bool:
        """Return whether all consumers of a group's units are observed."""
        return bool(self.places[number]) and len(self.places[number]) == len(self.groups[number].of_role("consumer"))

    def activations(self, data: Data, batch: int) -> Iterator[dict[int, list[Tensor]]]:
        """Yield, for each batch, each consumer's (by id) inputs, call by call, (samples, channels, ...)."""
        seen: dict[int, list[Tensor]] = {}

        def note(layer: nn.Module, activation: Tensor) -> None:
            seen.setdefault(id(layer), []).append(activation.detach())

        hooks = [before_call(layer, note) for layer in self.layers()]
        try:
            with eval_mode(self.network):
                for inputs, _ in data.batches(batch):
                    seen.clear()
                    self.run(inputs)
                    yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def layers(self) -> list[nn.Module]:
        return list({id(layer): layer for places in self.places for _, layer in places}.values())

    def means(self, data: Data, batch: int) -> dict[int, Tensor]:
        """Return the mean of each channel that a consumer reads."""
        sums: dict[int, Tensor] = {}
        counts: dict[int, int] = {}
        layers = {id(layer): layer for layer in self.layers()}
        for seen in self.activations(data, batch):
            for key, activation in ((key, activation) for key, calls in seen.items() for activation in calls):
                flat = activation.movedim(channel_axis(layers[key], activation), 0).flatten(1)
                sums[key] = sums.get(key, torch.zeros(len(flat), device=flat.device)) + flat.sum(1)
                counts[key] = counts.get(key, 0) + flat.shape[1]
        return {key: total / counts[key] for key, total in sums.items()}

    def slopes(self, data: Data, batch: int, slope: SlopeOf, means: dict[int, Tensor]) -> Iterator[list[Tensor]]:
        """Yield, for each batch, each group's (samples, units): the first-order change of `slope` when a unit outputs
        its mean.

        Without `means` (an empty dict): when it outputs zero. Slopes are summed over positions and consumers.
        """
        read: list[tuple[nn.Module, Tensor]] = []
        hooks = [before_call(layer, watching(read)) for layer in self.layers()]
        was = [(p, p.requires_grad) for p in self.network.parameters()]
        try:
            for parameter, _ in was:
                parameter.requires_grad_(parameter.is_floating_point())
            with eval_mode(self.network):
                for inputs, targets in data.batches(batch):
                    read.clear()
                    with torch.enable_grad():
                        value = slope(self.run(inputs), to_device(targets, self.device))
                        activations = [activation for _, activation in read]
                        gradients = torch.autograd.grad(value, activations, allow_unused=True) if read else ()
                    samples = sample_count(targets)
                    sums = self.by_consumer(read, gradients, means, samples)
                    yield [self.by_unit(number, sums, samples) for number in range(len(self.groups))]
        finally:
            for parameter, wanted in was:
                parameter.requires_grad_(wanted)
            for hook in hooks:
                hook.remove()

    def by_consumer(
        self,
        read: list[tuple[nn.Module, Tensor]],
        gradients: Sequence[Tensor | None],
        means: dict[int, Tensor],
        samples: int,
    ) -> dict[int, Tensor]:
        """Return, for each consumer (by id), (samples, channels): activation x gradient, summed over positions."""
        sums: dict[int, Tensor] = {}
        for (layer, activation), gradient in zip(read, gradients, strict=True):
            if gradient is None:
                continue
            kept, mean = activation.detach(), means.get(id(layer))
            if mean is not None:
                kept = kept - mean.view(
                    [-1 if d == channel_axis(layer, activation) else 1 for d in range(activation.dim())]
                )
            found = per_channel(layer, gradient * kept).float()
            if len(found) % samples:
                raise BadNetwork(
                    f"channel gradients: {type(layer).__name__} reads {len(found)} rows for {samples} samples, which cannot be "
                    "assigned to samples. Use an importance of weights alone, such as magnitude."
                )
            # The tokens of a sample may be consecutive rows.
            found = found.unflatten(0, (samples, -1)).sum(1)
            sums[id(layer)] = sums[id(layer)] + found if id(layer) in sums else found
        return sums

    def by_unit(self, number: int, sums: dict[int, Tensor], samples: int) -> Tensor:
        """Return the slopes of a group's units, over all its consumers."""
        total = torch.zeros(samples, self.groups[number].count, device=self.device)
        for slot, layer in self.places[number]:
            if id(layer) in sums:
                mine = slot.units >= 0
                total.index_add_(1, slot.units[mine].to(self.device), sums[id(layer)][:, mine.to(self.device)])
        return total

    def run(self, inputs: Any) -> Any:
        return call(self.network, to_device(inputs, self.device))


def watching(read: list[tuple[nn.Module, Tensor]]) -> Callable[[nn.Module, Tensor], Tensor | None]:
    """Return a hook that records a layer's input through an alias: a residual branch has its own gradient."""

    def before(layer: nn.Module, activation: Tensor) -> Tensor | None:
        if not activation.requires_grad:
            return None
        alias = activation.view_as(activation)
        read.append((layer, alias))
        return alias

    return before
