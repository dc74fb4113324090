"""match: give each output channel the mean and variance back that it had before a lossy step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.devices import own_device
from cortado.eval_mode import eval_mode
from cortado.methods.method import Method, knob
from cortado.network.compare.divergence import divergence_of, rows_of
from cortado.network.compare.replay import own
from cortado.network.graph.hooks import before_call
from cortado.network.statistics.activations import channel_axis
from cortado.network.view import View
from cortado.parts.forms.attach import attached_names
from cortado.task.task import Task, to_device
from cortado.trees import tensors_in

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MATMUL_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Moments = tuple[Tensor, Tensor]
FEWEST, MOST_NUMBERS = 64, 10_000_000
"""More samples than the first are looked at only where together they have no more numbers than this."""
NOTHING, TEMPERATURE = 1e-6, 4.0
"""Nats for which nothing is moved; and what softens classes before they are compared."""


@dataclass(frozen=True)
class Wanted:
    """What a network gave before a step: `moments` by the paths of its norms and products, and some of its `answers`."""

    moments: dict[str, Moments]
    answers: Tensor


@dataclass(frozen=True)
class MatchMoments(Method):
    """Moment matching, layer after layer, both networks on the same images; the default after every lossy step.

    Each batch norm gives every channel the mean and the variance that it gave in the network before the step: its
    stored statistics move. Where no norm follows a layer, its bias does, and the row scale where the form has one; biases
    and scales stay, with a note, where the answers would come no nearer to those before the step: the tokens of a
    transformer do not share one shift. Nothing but floats changes; no deviation grows or shrinks more than fourfold at a
    time. An unchanged network stays as it is, which re-estimating batch norms from a few images would not achieve.
    """

    matches = True

    images: int = knob(
        256, low=2, help="calibration samples that both networks see, in one batch; of large ones fewer, 64 or more"
    )

    def apply(self, view: View, task: Task) -> None:
        self.toward(view, task, self.wanted(view, task))

    def wanted(self, view: View, task: Task) -> Wanted:
        """What the network before the step gives."""
        return original_moments(view, self.inputs(view, task))

    def inputs(self, view: View, task: Task) -> Any:
        assert task.calibration is not None
        numbers = sum(one.numel() for one in tensors_in(task.example)) // min(2, len(task.calibration))
        count = min(self.images, max(FEWEST, MOST_NUMBERS // max(1, numbers)), len(task.calibration))
        inputs, _ = next(task.calibration.batches(count))
        return to_device(inputs, own_device(view.network))

    def toward(self, view: View, task: Task, wanted: Wanted) -> tuple[float, float]:
        """Match what `wanted` gave, of one network before several steps.

        How many nats the answers are from those then, without and with biases and row scales matched; the lower one is kept.
        """
        inputs = self.inputs(view, task)
        moments = {path: of_kept(pair, view.kept.get(path)) for path, pair in wanted.moments.items()}
        norms, matmul_layers = self.layers(view, moments)
        start = states([*norms.values(), *matmul_layers.values()])
        without = between(task, wanted.answers, run_once(view.network, inputs, norm_hooks(norms, moments)))
        if not matmul_layers or without <= NOTHING:
            return without, without
        normed = states([*norms.values(), *matmul_layers.values()])
        give_back(start)
        hooks = [*norm_hooks(norms, moments), *matmul_hooks(matmul_layers, moments, shared_layers(view))]
        both = between(task, wanted.answers, run_once(view.network, inputs, hooks))
        if without < both or math.isnan(both):
            give_back(normed)
            numbers = wanted.answers.numel() and divergence_of(wanted.answers, task.answers).variance is not None
            # Half the squared error over the variance is what a nat of numbers is.
            far = f"are {both:.3g} nats" if not numbers else f"differ by {2 * both:.1%} of their variance"
            view.notes.append(
                f"match: biases and row scales stay; with them matched the answers{'' if numbers else ', softened,'} {far} "
                f"from those before the step, without {f'{2 * without:.1%}' if numbers else f'{without:.3g}'}"
            )
        return without, both

    def layers(self, view: View, wanted: dict[str, Moments]) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        """The norms that are matched, and the products in whose place no norm is, by path."""
        chosen = {id(layer) for weight in view.weights(self.where) for layer, _ in weight.places}
        followed = layers_before_norms(view)
        known = {path: layer for path, layer in view.network.named_modules() if path in wanted}
        matmul_layers = {path: layer for path, layer in known.items() if isinstance(layer, MATMUL_LAYERS)}
        return (
            {path: layer for path, layer in known.items() if isinstance(layer, NORMS)},
            {path: layer for path, layer in matmul_layers.items() if id(layer) in chosen and path not in followed},
        )


def shared_layers(view: View) -> set[int]:
    """Layers whose weight another one has too, by identity: it cannot be scaled for one of them."""
    return {id(layer) for weight in view.all_weights if len(weight.places) > 1 for layer, _ in weight.places}


def norm_hooks(norms: dict[str, nn.Module], wanted: dict[str, Moments]) -> list[Any]:
    done: set[str] = set()
    return [before_call(layer, norm_hook(path, wanted[path], done)) for path, layer in norms.items()]


def matmul_hooks(matmul_layers: dict[str, nn.Module], wanted: dict[str, Moments], shared: set[int]) -> list[Any]:
    done: set[str] = set()
    # An unsigned rounding cuts off what is below zero: moments are those of what comes before it.
    return [
        layer.register_forward_hook(matmul_hook(path, wanted[path], done, id(layer) not in shared), prepend=True)
        for path, layer in matmul_layers.items()
    ]


def states(layers: list[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Every tensor of some layers, and what it holds."""
    found = {id(one): one for layer in layers for one in (*layer.parameters(), *layer.buffers())}
    return [(one, one.detach().clone()) for one in found.values()]


@torch.no_grad()
def give_back(attached: list[tuple[Tensor, Tensor]]) -> None:
    for one, value in attached:
        if not torch.equal(one, value):
            one.copy_(value)


def between(task: Task, wanted: Tensor, found: Tensor) -> float:
    """Mean nats between two networks' answers to the same inputs, classes softened: of what a network has learned by heart
    it is sure, whatever is done to it.  0 where the answers are not alike, or there are none."""
    if wanted.shape != found.shape or not wanted.numel():
        return 0.0
    divergence = divergence_of(wanted, task.answers)
    cold = TEMPERATURE if divergence.variance is None else 1.0
    return float(divergence.between(wanted / cold, found / cold).mean())


def run_once(network: nn.Module, inputs: Any, hooks: list[Any]) -> Tensor:
    """One forward pass in eval mode without gradients, random numbers as at every other; hooks are removed, modes restored.

    Some of the answers, float64: rows spread evenly, of MOST_NUMBERS numbers or a few more.
    """
    given = own(inputs)
    try:
        with eval_mode(network), torch.random.fork_rng(devices=()):
            outputs = network(*given) if isinstance(given, tuple) else network(given)
    finally:
        for hook in hooks:
            hook.remove()
    found = [one for one in tensors_in(outputs)[:1] if one.numel() and one.layout == torch.strided]
    if not found:
        return torch.zeros(0)
    rows = rows_of(found[0])
    return rows[:: -(-rows.numel() // MOST_NUMBERS)].double()


def moments(activation: Tensor, axis: int) -> Moments:
    """Mean and variance of each channel, which lie along `axis`, over all other axes; float64."""
    axes = [other for other in range(activation.dim()) if other != axis % activation.dim()]
    exact = activation if activation.dtype == torch.float64 else activation.float()
    variance, mean = torch.var_mean(exact, axes, correction=0)
    return mean.double(), variance.double()


def original_moments(view: View, inputs: Any) -> Wanted:
    """Of the reference, for each norm and product the moments of its output, at its first call; of a norm without what a
    subclass adds.

    A product that gives a single row has none.
    """
    found: dict[str, Moments] = {}

    def before(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, activation: Tensor) -> None:
            if layer.running_mean is not None:
                found.setdefault(path, normed(layer, moments(activation, 1)))

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if output.dim() > 1:
                found.setdefault(path, moments(output, channel_axis(layer, output)))

        return hook

    hooks = [
        before_call(layer, before(path)) if isinstance(layer, NORMS) else layer.register_forward_hook(after(path))
        for path, layer in view.reference.named_modules()
        if isinstance(layer, (*NORMS, *MATMUL_LAYERS))
    ]
    return Wanted(found, run_once(view.reference, inputs, hooks))


def of_kept(pair: Moments, kept: Tensor | None) -> Moments:
    """The moments of the channels that a cut has left."""
    return pair if kept is None else (pair[0][kept], pair[1][kept])


def layers_before_norms(view: View) -> set[str]:
    """Products whose output goes straight into a batch norm, which then does the matching for them."""
    made: dict[int, tuple[str, Tensor]] = {}
    found: set[str] = set()

    def after(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            made[id(output)] = (path, output)

        return hook

    def before(layer: nn.Module, activation: Tensor) -> None:
        if id(activation) in made:
            found.add(made[id(activation)][0])

    hooks = [
        before_call(layer, before) if isinstance(layer, NORMS) else layer.register_forward_hook(after(path))
        for path, layer in view.network.named_modules()
        if isinstance(layer, (*NORMS, *MATMUL_LAYERS))
    ]
    device = own_device(view.network)
    run_once(view.network, to_device(view.example, device), hooks)
    return found


def ratio_of(wanted: Tensor, got: Tensor) -> Tensor:
    """How much a channel's deviation has to grow; 1 where it says nothing, and never extreme."""
    ratio = (wanted / got.clamp(min=1e-12)).sqrt()
    return torch.where((got < 1e-10) | (wanted < 1e-10), 1.0, ratio.clamp(0.25, 4.0))


def normed(layer: Any, given: Moments) -> Moments:
    """The moments behind a norm, from those before it."""
    gain, shift, spread = numbers_of(layer)
    return (given[0] - layer.running_mean.double()) * gain / spread + shift, given[1] * (gain / spread) ** 2


def numbers_of(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Gain, shift and stored deviation of a norm, float64."""
    mean, spread = layer.running_mean.double(), (layer.running_var.double() + layer.eps).sqrt()
    gain = torch.ones_like(mean) if layer.weight is None else layer.weight.detach().double()
    return gain, torch.zeros_like(mean) if layer.bias is None else layer.bias.detach().double(), spread


def norm_hook(path: str, wanted: Moments, done: set[str]) -> Callable[..., None]:
    def hook(layer: Any, activation: Tensor) -> None:
        got = moments(activation, 1)
        if path in done or layer.running_mean is None or got[0].shape != wanted[0].shape:
            return
        done.add(path)
        gain, shift, spread = numbers_of(layer)
        variance = ((spread / ratio_of(wanted[1], normed(layer, got)[1])) ** 2 - layer.eps).clamp(min=0)
        spread = (variance + layer.eps).sqrt()
        # A channel without a gain says its shift, whatever comes in.
        mean = got[0] - (wanted[0] - shift) * spread / torch.where(gain == 0, 1.0, gain)
        layer.running_mean.copy_(torch.where(gain == 0, layer.running_mean.double(), mean))
        layer.running_var.copy_(variance)

    return hook


def matmul_hook(path: str, wanted: Moments, done: set[str], scales: bool) -> Callable[..., Tensor | None]:
    def hook(layer: Any, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if path in done or output.dim() == 1:
            return None
        axis = channel_axis(layer, output)
        got, bias = moments(output, axis), layer._parameters.get("bias")
        if bias is None or got[0].shape != wanted[0].shape or isinstance(layer, TRANSPOSED):
            return None
        done.add(path)
        scale = ratio_of(wanted[1], got[1])
        if not (scales and scale_rows(layer, scale)):
            scale = torch.ones_like(scale)
        moved = scale * (bias.double() - got[0]) + wanted[0]
        bias.copy_(moved)
        shape = [-1 if other == axis else 1 for other in range(output.dim())]
        before, factor, after = (value.to(output).view(shape) for value in (got[0], scale, wanted[0]))
        return (output - before) * factor + after

    return hook


TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def scale_rows(layer: nn.Module, factors: Tensor) -> bool:
    """Scale the rows of a layer's weight if it is held in a form that can; a plain weight is left as it is."""
    if "weight" not in attached_names(layer):
        return False
    return bool(layer._modules["held_weight"].scale_rows(factors.float()))  # type: ignore[union-attr, operator]
