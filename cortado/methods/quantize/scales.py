"""quantize/scales: learn the scales of fixed codes, and the floats beside them, from the original network's outputs."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.knobs.nested import flat_knobs
from cortado.layers.kinds import is_known_matrix, is_lookup
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.methods.quantize.floats import round_mantissa
from cortado.network.statistics.activations import channel_axis
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.form import Form
from cortado.running.call import call
from cortado.task.task import Task
from cortado.training.learning import frozen, parts_of
from cortado.training.loop import train
from cortado.training.objectives.logits import Logits
from cortado.training.teachers import check_teacher, notes_on_teachers, teachers_of
from cortado.training.training import Training

SMALLEST = 0.05
"""Floats learn at lr times their mean size, but at least at this share of lr: biases may begin at zero."""


@flat_knobs
@dataclass(frozen=True)
class QuantizeScales(Method):
    """Learn one factor for each output of the layers with codes, and all vectors, by KL from the original's outputs.

    A row's scale is a factor of its layer's output, and of the rows that an embedding returns: so the product runs once with
    fixed weights, and no gradient of a weight is computed, as `finetune` does. Codes stay. Scales learned from end to end are
    the second phase of EfficientQAT (Chen et al., 2024). Needs inputs, no labels.
    `lr` is relative: to a scale, and to the mean size of a vector.
    """

    trains = True
    leaves = (Leaves.FLOATS,)

    training: Training = knob(Training(epochs=1.0, lr=3e-3, statistics="kept", cache="live"), help="how to train")
    teacher: Any = knob(
        "original", help="whose outputs to match: original, before, a maker, a network", check=check_teacher
    )
    temperature: float = knob(1.0, low=0.05, help="softmax temperature of both outputs, where they are logits")
    mantissa: int = knob(5, low=1, high=22, help="bits of a scale kept after the leading one")

    def apply(self, view: View, task: Task) -> None:
        weights = CODES.require(self, view, task)
        chosen = {id(part) for weight in vectors(view, self.where) for part in parts_of(weight)}
        teachers = teachers_of(self.teacher, view)
        runner = WithFactors(view.network, weights)
        try:
            with frozen(one for one in view.network.parameters() if id(one) not in chosen):
                trained = train(
                    runner, task, self.training, objectives=(Logits(temperature=self.temperature),), teachers=teachers,
                    seed=task.seed, label=self.name(), progress=view.progress, groups=self.groups,
                )  # fmt: skip
        finally:
            runner.remove()
        for weight, factor in zip(weights, runner.factors, strict=True):
            self.scale(weight, factor.detach().exp())
        view.curves |= trained.curves
        view.notes += [*trained.traffic.notes(), *notes_on_teachers(teachers, view, task)]

    def groups(self, runner: nn.Module) -> Iterable[dict[str, Any]]:
        """Yield a parameter group for each size: Adam moves every number by about the learning rate."""
        factors = {id(one) for name, one in runner.named_parameters() if name.startswith("factors.")}
        for one in (one for one in runner.parameters() if one.requires_grad):
            size = 1.0 if id(one) in factors else max(SMALLEST, float(one.detach().abs().mean()))
            yield {"params": [one], "lr": self.training.lr * size}

    def scale(self, weight: Weight, factors: Tensor) -> None:
        """Multiply the rows of a weight by their factors, and round its scales."""
        form = weight.form
        form.scale_rows(factors)
        with torch.no_grad():
            for name in form.units:
                value = getattr(form, name)
                value.copy_(round_mantissa(value.float(), self.mantissa))
        weight.touched.add(weight.path)


class WithFactors(nn.Module):
    """A network with a factor for each output of some weights' layers; `factors` holds their logarithms, (outputs,) each."""

    def __init__(self, network: nn.Module, weights: list[Weight]) -> None:
        super().__init__()
        self.inner = network
        self.factors = nn.ParameterList(torch.zeros(weight.shape[0]).to(weight.dense().device) for weight in weights)
        self.hooks = [
            layer.register_forward_hook(scaling(factor))
            for weight, factor in zip(weights, self.factors, strict=True)
            for layer, _ in weight.places
        ]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return call(self.inner, named or inputs)

    def remove(self) -> None:
        """Take the factors off the layers."""
        for hook in self.hooks:
            hook.remove()


def scaling(factor: Tensor) -> Callable[..., Tensor]:
    """Return a hook that multiplies the outputs of a layer, without its bias, by e to these logarithms."""

    def hook(layer: nn.Module, given: Any, output: Tensor) -> Tensor:
        times = factor.exp().to(output.dtype)
        if is_lookup(layer):
            return output * times[given[0]][..., None]
        axis = channel_axis(layer, output)
        shape = [-1 if place == axis else 1 for place in range(output.dim())]
        bias = getattr(layer, "bias", None)
        if bias is None:
            return output * times.view(shape)
        shift = bias.to(output.dtype).view(shape)
        return (output - shift) * times.view(shape) + shift

    return hook


def vectors(view: View, where: str) -> list[Weight]:
    """Return the vectors that are plain floats, such as the gains of norms: all, or those that `where` names."""
    chosen = view.all_weights if where == "*" else view.weights(where)
    return [weight for weight in chosen if len(weight.shape) == 1 and weight.real and weight.form.only_floats]


def with_codes(method: Method, view: View, task: Task) -> list[Weight]:
    """Return the chosen weights with codes and a scale for each output, whose layers multiply or read them."""
    return [
        weight
        for weight in view.weights(method.where)
        if all(name == "weight" and (is_known_matrix(one) or is_lookup(one)) for one, name in weight.places)
        and weight.form.lattice() is not None
        and rows_grow_apart(weight.form)
    ]


def rows_grow_apart(form: Form) -> bool:
    """Return whether each row of a form can be multiplied by a factor of its own."""
    unequal = torch.linspace(1.0, 2.0, form.shape[0])
    return copy.deepcopy(form).cpu().scale_rows(unequal)


CODES = Need(
    "a linear layer, a convolution or an embedding with codes and a scale for each output",
    with_codes,
    "quantize first, with per: channel",
)
QuantizeScales.needs = (CODES,)
