"""match_moments: restore each output channel's mean and variance from before a lossy step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.kinds import is_channel_norm, is_matmul, is_transposed
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.network.compare.replay import own
from cortado.network.graph.hooks import before_call
from cortado.network.statistics.activations import channel_axis
from cortado.network.statistics.norm_moments import Moments, channel_moments, norm_hook, normed, ratio_of
from cortado.network.view import View
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.forms.attach import attached_names
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import tensors_in, to_device
from cortado.task.outputs.outputs import Outputs, Rows, in_float64, same_shapes, some_places
from cortado.task.task import Task

FEWEST, MOST_NUMBERS = 64, 10_000_000
"""More samples than the first are used only if their outputs together have at most this many numbers."""
NOTHING, TEMPERATURE = 1e-6, 4.0
"""KL divergence (nats) below which nothing changes; softmax temperature of the comparison."""


@dataclass(frozen=True)
class BeforeStep:
    """The network before a step: `channel_moments` by path of norm or matmul layer, and some rows of its outputs (`answers`)."""

    moments: dict[str, Moments]
    answers: Rows


@dataclass(frozen=True)
class MatchMoments(Method):
    """Moment matching, layer by layer, with both networks on the same images; the default after every lossy step.

    Each batch norm's stored statistics are adjusted so that every channel has the mean and variance it had before the
    step. Where no norm follows a layer, its bias is adjusted, and the row scale if the form has one; these changes are
    undone, with a note, if they bring the outputs no closer to those before the step (the tokens of a transformer have
    no common shift). Only floats change, and no deviation changes more than fourfold at a time. An unchanged network
    stays exactly the same, unlike when batch norms are re-estimated from a few images.
    """

    matches = True
    leaves = (Leaves.FLOATS,)

    images: int = knob(256, low=2, help="calibration samples, in one batch; fewer (at least 64) if they are large")

    def apply(self, view: View, task: Task) -> None:
        self.toward(view, task, self.wanted(view, task))

    def wanted(self, view: View, task: Task) -> BeforeStep:
        """Return the statistics of the network before the step."""
        return original_moments(view, self.inputs(view, task), task.outputs)

    def inputs(self, view: View, task: Task) -> Any:
        assert task.calibration is not None
        numbers = sum(one.numel() for one in tensors_in(task.example)) // min(2, len(task.calibration))
        count = min(self.images, max(FEWEST, MOST_NUMBERS // max(1, numbers)), len(task.calibration))
        inputs, _ = next(task.calibration.batches(count))
        return to_device(inputs, own_device(view.network))

    def toward(self, view: View, task: Task, wanted: BeforeStep) -> tuple[float, float]:
        """Match the statistics in `wanted`, which may be of a network several steps ago.

        Return the KL divergence from its outputs (nats), without and with biases and row scales; the better one is kept.
        """
        inputs = self.inputs(view, task)
        moments = {path: of_kept(pair, view.kept.get(path)) for path, pair in wanted.moments.items()}
        norms, matmul_layers = self.layers(view, moments)
        start = states([*norms.values(), *matmul_layers.values()])
        without = between(
            task, wanted.answers, run_with_hooks(view.network, inputs, norm_hooks(norms, moments), task.outputs)
        )
        if not matmul_layers or without <= NOTHING:
            return without, without
        normed = states([*norms.values(), *matmul_layers.values()])
        restore_states(start)
        hooks = [*norm_hooks(norms, moments), *matmul_hooks(matmul_layers, moments, shared_layers(view))]
        both = between(task, wanted.answers, run_with_hooks(view.network, inputs, hooks, task.outputs))
        if without < both or math.isnan(both):
            restore_states(normed)
            numbers = not task.outputs.fitted(wanted.answers).softens
            # For numbers, half the squared error over the variance plays the role of the KL divergence in nats.
            far = f"by {2 * both:.1%} of their variance" if numbers else f"by {both:.3g} nats"
            view.notes.append(
                "match_moments: biases and row scales are unchanged; with them matched, the "
                f"{'' if numbers else 'softened '}outputs would differ {far} from those before the step, instead of "
                f"{f'{2 * without:.1%}' if numbers else f'{without:.3g}'}"
            )
        return without, both

    def layers(self, view: View, wanted: dict[str, Moments]) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        """Return the norms to match, and the matmul layers without a norm behind them, by path."""
        chosen = {id(layer) for weight in view.weights(self.where) for layer, _ in weight.places}
        followed = layers_before_norms(view)
        known = {path: layer for path, layer in view.network.named_modules() if path in wanted}
        matmul_layers = {path: layer for path, layer in known.items() if is_matmul(layer)}
        return (
            {path: layer for path, layer in known.items() if is_channel_norm(layer)},
            {path: layer for path, layer in matmul_layers.items() if id(layer) in chosen and path not in followed},
        )


def shared_layers(view: View) -> set[int]:
    """Return the ids of layers that share their weight with another: it cannot be rescaled for one of them."""
    return {id(layer) for weight in view.all_weights if len(weight.places) > 1 for layer, _ in weight.places}


def norm_hooks(norms: dict[str, nn.Module], wanted: dict[str, Moments]) -> list[Any]:
    done: set[str] = set()
    return [before_call(layer, norm_hook(path, wanted[path], done)) for path, layer in norms.items()]


def matmul_hooks(matmul_layers: dict[str, nn.Module], wanted: dict[str, Moments], shared: set[int]) -> list[Any]:
    done: set[str] = set()
    # An unsigned quantizer cuts off negative values, so take the moments of its input.
    return [
        layer.register_forward_hook(matmul_hook(path, wanted[path], done, id(layer) not in shared), prepend=True)
        for path, layer in matmul_layers.items()
    ]


def states(layers: list[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Return every tensor of the layers with a copy of its values."""
    found = {id(one): one for layer in layers for one in (*layer.parameters(), *layer.buffers())}
    return [(one, one.detach().clone()) for one in found.values()]


@torch.no_grad()
def restore_states(attached: list[tuple[Tensor, Tensor]]) -> None:
    for one, value in attached:
        if not torch.equal(one, value):
            one.copy_(value)


def between(task: Task, wanted: Rows, found: Rows) -> float:
    """Return the mean divergence of two networks' softened outputs, in nats; 0 if they are not comparable or empty."""
    if not same_shapes(wanted, found):
        return 0.0
    return float(task.outputs.fitted(wanted).divergence(wanted, found, TEMPERATURE).mean())


def run_with_hooks(network: nn.Module, inputs: Any, hooks: list[Any], kind: Outputs) -> Rows:
    """Run one forward pass in eval mode without gradients and with fixed random numbers; then remove hooks, restore modes.

    Return evenly spaced rows of the outputs, float64, about MOST_NUMBERS numbers in total.
    """
    given = own(inputs)
    try:
        with eval_mode(network), torch.random.fork_rng(devices=()):
            outputs = call(network, given)
    finally:
        for hook in hooks:
            hook.remove()
    return in_float64(some_places(kind.rows(outputs), MOST_NUMBERS))


def original_moments(view: View, inputs: Any, kind: Outputs) -> BeforeStep:
    """Return the output moments of each norm and matmul layer of the reference, at its first call.

    A norm's moments exclude anything that a subclass adds. A matmul layer with a single output row has none.
    """
    found: dict[str, Moments] = {}

    def before(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, activation: Tensor) -> None:
            if isinstance(layer, ScaleShift) or layer.running_mean is not None:
                found.setdefault(path, normed(layer, channel_moments(activation, 1)))

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if output.dim() > 1:
                found.setdefault(path, channel_moments(output, channel_axis(layer, output)))

        return hook

    hooks = [
        before_call(layer, before(path)) if is_channel_norm(layer) else layer.register_forward_hook(after(path))
        for path, layer in view.reference.named_modules()
        if is_channel_norm(layer) or is_matmul(layer)
    ]
    return BeforeStep(found, run_with_hooks(view.reference, inputs, hooks, kind))


def of_kept(pair: Moments, kept: Tensor | None) -> Moments:
    """Return the moments of the channels that remain after a cut."""
    return pair if kept is None else (pair[0][kept], pair[1][kept])


def layers_before_norms(view: View) -> set[str]:
    """Return the matmul layers whose output goes straight into a batch norm, which is matched in their place."""
    graph = view.graph
    read = {call.reads[0] for call in graph.every_call if call.reads and is_channel_norm(call.layer)}
    return {call.path for call in graph.every_call if is_matmul(call.layer) and read.intersection(call.makes)}


def matmul_hook(path: str, wanted: Moments, done: set[str], scales: bool) -> Callable[..., Tensor | None]:
    def hook(layer: Any, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if path in done or output.dim() == 1:
            return None
        axis = channel_axis(layer, output)
        got, bias = channel_moments(output, axis), layer._parameters.get("bias")
        if bias is None or got[0].shape != wanted[0].shape or is_transposed(layer):
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


def scale_rows(layer: nn.Module, factors: Tensor) -> bool:
    """Scale the rows of a layer's weight if its form supports it, and return whether it does; a plain weight stays."""
    if "weight" not in attached_names(layer):
        return False
    return bool(layer._modules["held_weight"].scale_rows(factors.float()))  # type: ignore[union-attr, operator]
