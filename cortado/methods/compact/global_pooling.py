"""compact/global_pooling: the mean of each map in place of flattening, and a small linear layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.factorize.targets import find_targets, working
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.graph.flattened import FlatHead, head_at
from cortado.network.graph.hooks import before_call
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.network.statistics.activations import BATCH, Moments, Sums
from cortado.network.view import View
from cortado.parts.activations.quantizer import sites
from cortado.parts.blocks.block import brought_along
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.pooled_linear import PooledLinear
from cortado.running.trees import to_device
from cortado.task.task import Task


def chosen_heads(view: View, where: str) -> list[FlatHead]:
    """Return the linear layers on flattened maps that `where` selects."""
    found, brought = [], brought_along(view.network)
    for target in find_targets(view, where):
        alone = len(target.shape) == 2 and len(target.weight.places) == 1 and not sites(target.layer)
        head = head_at(view.graph, target.layer) if alone and id(target.layer) not in brought else None
        found += [] if head is None else [head]
    return found


HEADS = Need(
    "a linear layer that reads flattened maps of several places",
    lambda method, view, task: chosen_heads(view, method.where),
)


@dataclass(frozen=True)
class CompactGlobalPooling(Method):
    """Global average pooling and a linear layer in place of a linear layer on flattened maps.  Lin, Chen, Yan, 2014.

    The new layer is fitted to the responses of what it replaces by least squares, on training samples without augmentation.
    `whole` replaces all layers from the flattened maps to the output at once, where they are modules in a row that `where`
    selects, as in torchvision's AlexNet and VGG; elsewhere, and without `whole`, the first layer alone. What a place in the
    picture has meant to the head is lost: `finetune` belongs after it, and may train the layers before.
    """

    lossy = True
    needs = (HEADS,)
    leaves = (Leaves.COMPACT, Leaves.FEWER_BLOCKS)

    whole: bool = knob(True, help="replace all layers up to the output, not the first alone")
    images: int = knob(4096, low=1, help="training samples to fit to")
    ridge: float = knob(1e-2, low=0.0, help="ridge of the fit, as a share of the mean square of a pooled channel")

    def apply(self, view: View, task: Task) -> None:
        # Later heads would read what earlier ones return, so all are found first.
        for head in HEADS.require(self, view, task):
            self.stand(view, task, head, self.behind(view, head))

    def behind(self, view: View, head: FlatHead) -> tuple[str, ...]:
        """Return the modules behind a layer that are replaced with it."""
        if not self.whole or not head.rest:
            return ()
        chosen = {weight.layer_path for weight in view.weights(self.where)}
        matrices = {weight.layer_path for weight in view.all_weights if len(weight.shape) > 1}
        return head.rest if all(path in chosen or path not in matrices for path in head.rest) else ()

    def stand(self, view: View, task: Task, head: FlatHead, behind: tuple[str, ...]) -> None:
        """Put a pooled layer in the place of a head, and nothing in the places behind it."""
        layer = view.network.get_submodule(head.path)
        seen = self.moments(view, task, head, (behind or (head.path,))[-1])
        weight, bias, lost = fitted_head(seen, head.channels, self.ridge)
        block = PooledLinear(head.channels, head.places, len(weight)).to(next(layer.parameters()))
        with torch.no_grad():
            block.linear.weight.copy_(weight)
            block.linear.bias.copy_(bias)
        view.wrap(head.path, block)
        for path in behind:
            view.wrap(path, Bypass())
        what = f"{head.path} to {behind[-1]}" if behind else head.path
        view.notes.append(
            f"{what}: the mean of {head.channels} maps and a linear layer; {lost:.1%} of the responses' variance is lost"
        )

    def moments(self, view: View, task: Task, head: FlatHead, end: str) -> Moments:
        """Return the moments of pooled channels with the responses beside them: what the module at `end` returns."""
        data, seen, pooled = task.train.original().first(self.images), Sums(), list[Tensor]()
        network, device = view.network, device_of(view.network) or torch.device("cpu")

        def read(layer: torch.nn.Module, given: Tensor) -> None:
            pooled.append(working(given.detach()).unflatten(-1, (head.channels, head.places)).mean(-1))

        def returned(layer: torch.nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            seen.add(torch.cat([pooled.pop(), working(output.detach())], 1))

        hooks = [
            before_call(network.get_submodule(head.path), read),
            network.get_submodule(end).register_forward_hook(returned),
        ]
        try:
            with undisturbed(network):
                for inputs, _ in data.batches(BATCH):
                    call_with(network, to_device(inputs, device))
        finally:
            for hook in hooks:
                hook.remove()
        return seen.moments()


def fitted_head(seen: Moments, channels: int, ridge: float) -> tuple[Tensor, Tensor, float]:
    """Return the weight (outputs, channels) and bias that explain responses best, and the share of their variance lost."""
    second, mean = seen.covariance, seen.mean
    metric, crossed = second[:channels, :channels], second[channels:, :channels]
    size = metric.diagonal().mean().clamp(min=1e-30)
    lifted = metric + ridge * size * torch.eye(channels).to(metric) + 1e-12 * size * torch.eye(channels).to(metric)
    weight = torch.linalg.solve(lifted, crossed.T).T
    total = second.diagonal()[channels:]
    error = total - 2 * (weight * crossed).sum(1) + ((weight @ metric) * weight).sum(1)
    lost = float(error.sum() / total.sum().clamp(min=1e-30))
    return weight, mean[channels:] - weight @ mean[:channels], max(lost, 0.0)
