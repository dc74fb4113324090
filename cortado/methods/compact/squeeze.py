"""compact/squeeze: fire modules in place of convolutions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.methods.compact.orders import Wanted, give_orders
from cortado.methods.compact.places import convolution_need, find_convolutions, stand_for
from cortado.methods.factorize.fitted import lifted
from cortado.methods.factorize.targets import Target, has_taps, working
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.network.statistics.activations import Moments, Sums, collect_activations, layer_places, patches
from cortado.network.view import View
from cortado.parts.blocks.fire_module import POINT, FireModule
from cortado.parts.blocks.picked import changes_places, set_order
from cortado.parts.blocks.window import has_middle, window_of, windowed
from cortado.task.data import Data
from cortado.task.task import Task


def pays(method: "CompactSqueeze", target: Target) -> bool:
    """Return whether a fire module can stand in a layer's place, and has fewer weights."""
    outputs, inputs = target.shape[:2]
    squeezed, large = method.sizes(target)
    weights = squeezed * (inputs + outputs - large + large * target.shape[2:].numel())
    return has_taps(target) and has_middle(window_of(target.layer)) and weights < target.shape.numel()


MIDDLE = convolution_need(
    "an ungrouped, zero-padded convolution over two axes, that is called, with a kernel that is odd, larger than 1 x 1 and "
    "padded by at least half its size, and with more weights than the fire module would have",
    pays,
)


@dataclass(frozen=True)
class CompactSqueeze(Method):
    """FireModule modules in place of convolutions: squeeze by 1 x 1, expand by 1 x 1 and larger kernels.  Iandola et al., 2016.

    The start is a closed form. Squeezed channels are the directions of the inputs that the filters use most; each output is
    then fitted to the layer's responses by least squares, and those that lose least without the larger kernel read one place.
    The bottleneck is linear (Sandler et al., 2018), which loses less before a training; `relu` puts SqueezeNet's ReLU behind
    the squeeze, with a bias so high at first that it clips few values. `finetune` belongs after it.
    """

    lossy = True
    needs = (MIDDLE,)
    leaves = (Leaves.COMPACT,)

    squeeze: float = knob(0.5, low=0.0, high=1.0, help="squeezed channels, as a share of the inputs")
    large: float = knob(0.5, low=0.0, high=1.0, help="share of the outputs that read the larger kernel")
    relu: bool = knob(False, help="a ReLU between squeeze and expand")
    shift: float = knob(1.5, low=0.0, help="bias of the squeeze in standard deviations of its values, with relu")
    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")

    def apply(self, view: View, task: Task) -> None:
        targets = MIDDLE.require(self, view, task)
        squeezes = self.directions(view, task, targets)
        seen = self.responses(view, task, targets, squeezes)
        sides = {one.path: self.expanded(one, seen[one.path]) for one in targets}
        indices = give_orders(view, targets, {path: Wanted(side.order) for path, side in sides.items()}, self.where)
        for path, side in sides.items():
            # Channels may have changed places, so the layer is looked up again.
            target, (returns, reads) = find_convolutions(view, path)[0], indices[path]
            stand_for(view, target, self.block(target, squeezes[path], side, returns, reads))
            view.notes.append(
                f"{path}: {squeezes[path].out_channels} squeezed channels, {len(side.point[0])} outputs of 1 x 1; "
                f"{side.lost:.1%} of the responses' variance is lost"
            )

    def sizes(self, target: Target) -> tuple[int, int]:
        """Return the number of squeezed channels, and of outputs that read the larger kernel."""
        outputs, inputs = target.shape[:2]
        return max(1, round(self.squeeze * inputs)), min(outputs, round(self.large * outputs))

    def directions(self, view: View, task: Task, targets: list[Target]) -> dict[str, nn.Conv2d]:
        """Return the squeeze of each layer: the leading directions of its inputs, as filters and data weigh them."""
        seen = {target.path: Sums() for target in targets}

        def note(path: str, activation: Tensor) -> None:
            seen[path].add(working(activation).movedim(1, -1).flatten(0, 2))

        collect_activations(view.network, list(seen), calibration(task, self.images), note)
        return {one.path: squeeze_along(one, seen[one.path].moments(), self.sizes(one)[0], self) for one in targets}

    def responses(
        self, view: View, task: Task, targets: list[Target], squeezes: dict[str, nn.Conv2d]
    ) -> dict[str, Moments]:
        """Return the moments of squeezed patches, which the larger kernel reads, with the layer's responses beside them."""
        data, layers = calibration(task, self.images), {target.path: target for target in targets}
        seen, each = {path: Sums() for path in layers}, -(-self.patches // len(data))
        places = {path: [layer_places(task, number) for _ in range(2)] for number, path in enumerate(layers)}

        def note(path: str, activation: Tensor) -> None:
            target, squeeze, given = layers[path], squeezes[path], working(activation)
            reader = windowed(window_of(target.layer), squeeze.out_channels, 1, False)
            small = squeeze(given)
            small = functional.relu(small) if self.relu else small
            # Equal generators, equal positions: the squeezed patches are padded with zeros, as in the block.
            old, new = (
                patches(target.layer, given, each, places[path][0]),
                patches(reader, small, each, places[path][1]),
            )
            seen[path].add(torch.cat([new, old @ target.flat.T], 1))

        with torch.no_grad():
            collect_activations(view.network, list(layers), data, note)
        return {path: sums.moments() for path, sums in seen.items()}

    def expanded(self, target: Target, seen: Moments) -> "Expanded":
        """Return both sides of a layer's module, fitted to its responses."""
        squeezed, large = self.sizes(target)
        return fitted_sides(seen, target.shape, squeezed, large, target.layer.bias is not None)

    def block(self, target: Target, squeeze: nn.Conv2d, side: "Expanded", returns: Tensor, reads: Tensor) -> FireModule:
        """Return the module for a layer, whose channels may have changed places: its outputs are picked by `returns`."""
        bias = target.layer.bias
        sizes = target.shape[1], squeeze.out_channels, len(side.point[0]), len(side.whole[0])
        made = FireModule(*sizes, window_of(target.layer), bias is not None, self.relu, changes_places(returns))
        set_order(made.after, returns)
        with torch.no_grad():
            made.squeeze.weight.copy_(squeeze.weight[:, reads.argsort()])
            if made.squeeze.bias is not None and squeeze.bias is not None:
                made.squeeze.bias.copy_(squeeze.bias)
            own = None if bias is None else bias[returns.argsort()].detach()
            start = 0
            for layer, (weight, constant) in ((made.point, side.point), (made.expand, side.whole)):
                if layer is not None:
                    layer.weight.copy_(weight.reshape(layer.weight.shape))
                    if layer.bias is not None and own is not None:
                        layer.bias.copy_(constant.to(own) + own[start : start + len(weight)])
                start += len(weight)
        return made


def squeeze_along(target: Target, seen: Moments, count: int, method: CompactSqueeze) -> nn.Conv2d:
    """Return a 1 x 1 convolution onto the directions of the inputs that the filters use most."""
    root, back = roots(lifted(seen.covariance + torch.outer(seen.mean, seen.mean)))
    kernel = target.weight.dense().double().cpu().flatten(2).permute(0, 2, 1).flatten(0, 1)
    axes = torch.linalg.svd(kernel @ root, full_matrices=False)[2][:count]
    made = windowed(POINT, target.shape[1], count, method.relu)
    # A kernel may use fewer directions than there are channels.
    weight = torch.cat([axes @ back, torch.zeros(count - len(axes), target.shape[1]).double()])
    with torch.no_grad():
        made.weight.copy_(weight[:, :, None, None])
        if made.bias is not None:
            spread = (weight @ seen.covariance * weight).sum(1).clamp(min=0).sqrt()
            made.bias.copy_(method.shift * spread - weight @ seen.mean)
    return made.to(working(target.weight.dense()))


def calibration(task: Task, images: int) -> Data:
    """Return calibration samples."""
    assert task.calibration is not None
    return task.calibration.first(images)


def roots(metric: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a positive matrix, and its inverse."""
    values, vectors = torch.linalg.eigh(metric)
    sizes = values.clamp(min=1e-12).sqrt()
    return (vectors * sizes) @ vectors.T, (vectors / sizes) @ vectors.T


@dataclass(frozen=True)
class Expanded:
    """The order of the outputs, those of one place first; weight and bias of both sides; the share of the variance lost."""

    order: Tensor
    point: tuple[Tensor, Tensor]
    whole: tuple[Tensor, Tensor]
    lost: float


def fitted_sides(seen: Moments, shape: torch.Size, squeezed: int, large: int, biased: bool) -> Expanded:
    """Fit every output to the layer's responses from all places and from the middle one, and choose who reads which.

    `seen`: moments of squeezed patches (squeezed x taps) and responses (outputs).
    """
    outputs, taps = shape[0], shape[2:].numel()
    read = squeezed * taps
    middle = torch.arange(squeezed) * taps + taps // 2
    second = seen.covariance + (0 if biased else torch.outer(seen.mean, seen.mean))
    total = second.diagonal()[read:]
    whole, left = fitted_outputs(second, torch.arange(read), read)
    point, more = fitted_outputs(second, middle, read)
    order = (more - left).argsort(stable=True)
    few, many = order[: outputs - large].sort().values, order[outputs - large :].sort().values
    lost = float((more[few].sum() + left[many].sum()) / total.sum().clamp(min=1e-30))

    def side(weight: Tensor, places: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return weight[rows], (seen.mean[read:] - weight @ seen.mean[places])[rows]

    return Expanded(
        torch.cat([few, many]), side(point, middle, few), side(whole, torch.arange(read), many), max(lost, 0.0)
    )


def fitted_outputs(second: Tensor, places: Tensor, read: int) -> tuple[Tensor, Tensor]:
    """Return the weights (outputs, places) that explain the responses best, and each output's error."""
    metric = second[places][:, places]
    size = metric.diagonal().mean().clamp(min=1e-30)
    crossed = second[read:][:, places]
    ridge = 1e-4 * size * torch.eye(len(places)).to(metric)
    weight = torch.linalg.solve(metric + ridge, crossed.T).T
    error = second.diagonal()[read:] - 2 * (weight * crossed).sum(1) + ((weight @ metric) * weight).sum(1)
    return weight, error.clamp(min=0)
