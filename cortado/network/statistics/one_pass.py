"""One pass: what the weights of a whole network multiply, and what errors of their outputs cost, in memory of fixed size."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.kinds import is_lookup
from cortado.network.compare.divergence import divergence_for
from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.network.statistics.activations import channel_axis, patches
from cortado.running.memory import give_back_freed
from cortado.running.trees import tensors_in, to_device
from cortado.task.data import Data
from cortado.task.task import Task

MOST_OUTPUTS, MOST_SAMPLES = 2**24, 32
"""A batch has at most this many numbers of outputs, unless one sample has more, and this many samples."""
SEED = 7001
UNSEEN = 0.2
"""Rows of an embedding that the samples do not read cost this share of the mean: other samples read them."""


@dataclass(frozen=True)
class Statistics:
    """What one pass found, by the path of each layer.

    `inputs`: (groups, inputs, inputs) float32, the mean products of what `weight.flatten(1)` multiplies. `outputs`:
    (outputs,) float32, what the square of an error on one output costs in each place, in nats of a sample: half of the sum of
    `outputs * diag(error @ inputs @ error.T)` is the predicted KL of a small error of the weight. Layers that read the same
    activation share one tensor of `inputs`. An embedding has rows for outputs, which cost as often as they are read, and
    `inputs` are diagonal: what its columns cost, with a mean of 1.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def one_pass(
    network: nn.Module, layers: Mapping[str, nn.Module], task: Task, images: int, rows: int, slopes: int, half: bool
) -> Statistics:
    """Return the statistics of linear layers, convolutions and embeddings, of `images` calibration samples.

    Of each sample up to `rows` places are read: tokens, or positions of a kernel.

    Errors of outputs are weighed on the first `slopes` of the samples, by random slopes of the task's kind of outputs,
    which the network's own answers define: no labels are read. `half`: run in bfloat16; sums are float32.
    """
    assert task.calibration is not None
    device = device_of(network) or torch.device("cpu")
    embeddings = {path: layer for path, layer in layers.items() if is_lookup(layer)}
    matrices = {path: layer for path, layer in layers.items() if path not in embeddings}
    # Gradients take most memory: they come first, while there is nothing else to keep.
    weighed, size = task.calibration.first(images).first(slopes), batch_within(network, task, device)
    with undisturbed(network), halved(device, half):
        squares = output_squares(network, layers, task, weighed, size)
    outputs, read = dict[str, Tensor](), dict[str, Tensor]()
    for path, found in squares.items():
        outputs[path] = found
        if path in embeddings:
            rows_read, columns = found.sum(1), found.sum(0)
            read[path] = torch.diag(columns / columns.mean().clamp(min=1e-30))[None]
            outputs[path] = (rows_read + UNSEEN * rows_read.mean()) / found.shape[1]
    squares.clear()
    give_back_freed()
    inputs = input_products(network, matrices, task, images, rows, half) | read
    give_back_freed()
    return Statistics(inputs, outputs)


def input_products(
    network: nn.Module, layers: Mapping[str, nn.Module], task: Task, images: int, rows: int, half: bool
) -> dict[str, Tensor]:
    """Return the mean products of what linear layers and convolutions multiply, as `Statistics.inputs`, of those that ran."""
    assert task.calibration is not None
    device, places = device_of(network) or torch.device("cpu"), InputProducts(layers, rows, task.generator(SEED))
    size = batch_within(network, task, device)
    with undisturbed(network), halved(device, half), places.listening():
        for inputs, _ in task.calibration.first(images).batches(size):
            call_with(network, to_device(inputs, device))
    return places.found()


def batch_within(network: nn.Module, task: Task, device: torch.device) -> int:
    """Return how many samples may run together, by the size of one sample's outputs."""
    assert task.calibration is not None
    inputs, _ = next(task.calibration.batches(1))
    with undisturbed(network):
        numbers = sum(one.numel() for one in tensors_in(call_with(network, to_device(inputs, device))))
    return max(1, min(MOST_SAMPLES, MOST_OUTPUTS // max(1, numbers)))


def halved(device: torch.device, half: bool) -> contextlib.AbstractContextManager[Any]:
    """Run matrix products in bfloat16 inside the context, if `half`."""
    return torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()


@dataclass
class InputProducts:
    """Sums of the products of inputs, layer by layer, while a network runs."""

    layers: Mapping[str, nn.Module]
    rows: int
    generator: torch.Generator
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """The layer that has read the same activation before."""
    last: tuple[str, Tensor] | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        hooks = [before_call(layer, self.reading(path)) for path, layer in self.layers.items()]
        try:
            yield
        finally:
            self.last = None
            for hook in hooks:
                hook.remove()

    def reading(self, path: str) -> Any:
        def read(layer: nn.Module, activation: Tensor) -> None:
            # Queries, keys and values read one activation: its products are summed once.
            if self.last is not None and self.last[1] is activation and not hasattr(layer, "kernel_size"):
                self.sources[path] = self.last[0]
                return
            self.last = path, activation
            self.add(path, layer, activation.detach())

        return read

    def add(self, path: str, layer: nn.Module, activation: Tensor) -> None:
        groups = getattr(layer, "groups", 1)
        with torch.autocast(activation.device.type, enabled=False):
            found = patches(layer, activation, self.rows, self.generator).float()
            found = found.view(len(found), groups, -1).transpose(0, 1)
            products = found.mT @ found
        self.sums[path] = self.sums[path].add_(products) if path in self.sums else products
        self.counts[path] = self.counts.get(path, 0) + found.shape[1]

    def found(self) -> dict[str, Tensor]:
        """Return the mean products of all layers that ran."""
        means = {path: total.div_(self.counts[path]) for path, total in self.sums.items()}
        return means | {path: means[first] for path, first in self.sources.items() if path not in means}


def output_squares(
    network: nn.Module, layers: Mapping[str, nn.Module], task: Task, data: Data, batch: int
) -> dict[str, Tensor]:
    """Return the mean over samples of the squared gradients of random slopes, summed over places, for each output.

    (outputs,) for linear layers and convolutions, (rows, columns) for embeddings.
    """
    kind, signs, found = divergence_for(network, task), task.generator(SEED + 1), dict[str, Tensor]()
    hooks = [layer.register_forward_hook(squaring(path, found)) for path, layer in layers.items()]
    device = device_of(network) or torch.device("cpu")
    learning = [one for one in network.parameters() if one.requires_grad]
    try:
        # Gradients pass from the first layer's outputs on; weights need none.
        network.requires_grad_(False)
        with torch.enable_grad():
            for inputs, _ in data.batches(batch):
                outputs = call_with(network, to_device(inputs, device))
                slope = kind.slope(kind.rows(outputs), 1.0, signs)
                del outputs
                if slope.requires_grad:
                    slope.backward()
                del slope
    finally:
        for one in learning:
            one.requires_grad_(True)
        for hook in hooks:
            hook.remove()
    return {path: total / len(data) for path, total in found.items()}


def squaring(path: str, found: dict[str, Tensor]) -> Callable[..., Tensor | None]:
    """Return a hook that adds the squared gradients of a layer's outputs to `found`, by output or by row and column."""

    def hook(layer: nn.Module, given: Any, output: Tensor) -> Tensor | None:
        leaf = None if output.requires_grad else output.detach().requires_grad_()
        read = given[0].reshape(-1) if is_lookup(layer) else None
        axis = -1 if read is not None else channel_axis(layer, output)
        rows = (layer.num_embeddings,) if is_lookup(layer) else ()

        # It must not hold the output, which holds it: that memory would be freed late.
        def add(gradient: Tensor) -> None:
            squares = gradient.detach().movedim(axis, -1).reshape(-1, gradient.shape[axis]).float().square()
            if path not in found:
                found[path] = squares.new_zeros((*rows, squares.shape[1]))
            if read is not None:
                found[path].index_add_(0, read, squares)
            else:
                found[path] += squares.sum(0)

        (output if leaf is None else leaf).register_hook(add)
        # A copy, because what follows may write to it in place.
        return None if leaf is None else leaf.clone()

    return hook
