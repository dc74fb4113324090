"""student: continue with another network, which the following stages train and compress."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue
from cortado.file.entries import check_original
from cortado.methods.method import Method, knob
from cortado.nets.named import named_network
from cortado.network.graph.trace import device_of
from cortado.network.view import View, working_copy
from cortado.running.brought import accept
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import parts_by_name, to_device
from cortado.task.task import Task


@dataclass(frozen=True)
class Student(Method):
    """Put a network of another architecture in the place of the one so far; the original stays the teacher.

    Knowledge distillation into a smaller network: Bucila, Caruana, Niculescu-Mizil, 2006; Hinton, Vinyals, Dean, 2015.
    `teacher: original` of the following stages is still the network as the user gave it. Its outputs and the student's must
    have the same structure and shapes. The file is written against the student: load it with the student's maker. What
    earlier stages made of the network before is left behind.
    """

    restarts: ClassVar[bool] = True

    network: str | nn.Module | Callable[..., nn.Module] = knob(
        "", help="package.module:maker, the name of a built-in network, or in Python a maker or a network"
    )
    options: dict[str, Any] | None = knob(None, help="arguments of the maker")
    weights: str | None = knob(None, help="a file of trained weights, beside the recipe; null for those of the maker")
    seed: int | None = knob(None, low=0, help="seed of the maker's random values; null for the task's")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where != "*":
            raise BadValue(f"student: where must be *, got {self.where!r}. A student replaces the whole network.")

    def apply(self, view: View, task: Task) -> None:
        made = self.made(task.seed)
        notes = accept(made, self.name())
        check_original(made)
        student = working_copy(made).eval()
        check_outputs(view.original, student, view.example)
        view.become(student)
        view.notes += notes

    def made(self, seed: int) -> nn.Module:
        """Return the student with its first weights, the same for the same seed.  Raises BadRecipe, BadNetwork, BadValue."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed if self.seed is None else self.seed)
            return self.named(self.weights)

    def architecture(self, before: nn.Module) -> nn.Module:
        return self.named(None)

    def named(self, weights: str | None) -> nn.Module:
        if isinstance(self.network, str) and not self.network:
            raise BadValue("student: network is empty. Write network: package.module:maker.")
        return named_network(self.network, self.name(), self.options, weights)


def check_outputs(original: nn.Module, student: nn.Module, example: Any) -> None:
    """Raise BadNetwork unless both networks' outputs for the example have the same structure and shapes."""
    wanted, found = (outputs_in_words(network, example) for network in (original, student))
    if wanted != found:
        raise BadNetwork(
            f"student: {type(student).__name__} returns {found} for the example, the original network {wanted}. "
            "Give the student the same outputs, such as its number of classes."
        )


def outputs_in_words(network: nn.Module, example: Any) -> str:
    """Return the name, shape and type of every tensor in a network's outputs.  Raises BadNetwork if it does not run."""
    try:
        with eval_mode(network):
            outputs = call(network, to_device(example, device_of(network)))
    except Exception as error:
        raise BadNetwork(
            f"student: {type(network).__name__} cannot take the task's inputs ({type(error).__name__}: {error}). "
            "Make it take the inputs of the original network."
        ) from error
    tensors = {name: one for name, one in parts_by_name(outputs).items() if isinstance(one, Tensor)}
    words = [f"{name or 'a tensor'} of {kind_in_words(one)} {tuple(one.shape)}" for name, one in tensors.items()]
    return ", ".join(words) or "no tensor"


def kind_in_words(tensor: Tensor) -> str:
    """Return "floats" or "integers": two networks may compute in floats of different widths."""
    return "floats" if tensor.is_floating_point() else "integers"
