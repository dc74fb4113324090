"""Replay: what a network answers with one layer changed, without running again what comes before that layer."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cortado.network.divergence import answers
from cortado.network.trace import tensors_in, undisturbed

MOST_BYTES = 512 << 20
"""What is remembered at the most; what does not fit runs again."""


@dataclass
class Batch:
    """Inputs and what was answered for them, float64; of each module the numbers at which its calls ended, with outputs that
    are remembered; and by the id of each module and tensor how many calls had ended when it was first used."""

    inputs: Any
    wanted: Tensor
    calls: dict[nn.Module, list[tuple[int, Tensor | None]]] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)


class Replay:
    """A network in eval mode, and what each of its layers that call no other gave for some batches.

    Modules may be changed and put back between calls; all else has to stay. Outputs that are no tensor run again.
    """

    def __init__(self, network: nn.Module, batches: Sequence[Any], most_bytes: int = MOST_BYTES) -> None:
        self.network, self.left = network, most_bytes
        self.parts = {module: [module, *tensors_of(module)] for module in network.modules()}
        self.batches = [self.recorded(inputs) for inputs in batches]

    def recorded(self, inputs: Any) -> Batch:
        """Run a batch and write down what runs, in the order in which calls end."""
        batch, running, holders, ended = Batch(inputs, Tensor()), list[nn.Module](), set[nn.Module](), 0

        def use(*parts: Any) -> None:
            for part in parts:
                batch.used.setdefault(id(part), ended)

        def begin(module: nn.Module, _: Any) -> None:
            use(module)
            holders.update(running)
            running.append(module)

        def end(module: nn.Module, _: Any, output: Any) -> None:
            nonlocal ended
            running.pop()
            ended += 1
            batch.calls.setdefault(module, []).append((ended, self.kept(module in holders, output)))

        # The network itself always runs, and is used from the start.
        modules = [module for module in self.network.modules() if module is not self.network]
        hooks = [
            hook
            for module in modules
            for hook in (module.register_forward_pre_hook(begin), module.register_forward_hook(end))
        ]
        with undisturbed(self.network), removing(hooks), Uses({id(one) for one in self.parts[self.network]}, use):
            batch.wanted = answers(self.network, inputs).double()
        return batch

    def kept(self, holds: bool, output: Any) -> Tensor | None:
        """A copy of an output that is worth it: what comes after may change it in place."""
        if holds or not isinstance(output, Tensor) or output.nbytes > self.left:
            return None
        self.left -= output.nbytes
        return output.detach().clone()

    def answers(self, number: int, changed: Sequence[nn.Module]) -> Tensor:
        """What the network answers for a batch when these modules have changed, float64."""
        batch = self.batches[number]
        used = [batch.used.get(id(part)) for module in changed for part in self.parts[module]]
        first = min((number for number in used if number is not None), default=0)
        given = {
            module: [output for at, output in calls if at <= first and output is not None]
            for module, calls in batch.calls.items()
            if all(output is not None for at, output in calls if at <= first)
        }
        with undisturbed(self.network), replaying({module: some for module, some in given.items() if some}):
            return answers(self.network, batch.inputs).double()


class Uses(TorchDispatchMode):
    """Tells of each operator's tensors, those whose ids are asked for."""

    def __init__(self, ids: set[int], use: Callable[..., None]) -> None:
        super().__init__()
        self.ids, self.use = ids, use

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.use(*(one for one in tensors_in((arguments, named or {})) if id(one) in self.ids))
        return operator(*arguments, **(named or {}))


def tensors_of(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@contextlib.contextmanager
def removing(hooks: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def replaying(given: dict[nn.Module, list[Tensor]]) -> Iterator[None]:
    """The first calls of each module give what is remembered."""
    own = {module: module.__dict__.get("forward") for module in given}
    try:
        for module, outputs in given.items():
            module.forward = first_given(module.forward, outputs)  # type: ignore[method-assign]
        yield
    finally:
        for module, forward in own.items():
            del module.forward
            if forward is not None:
                module.forward = forward  # type: ignore[method-assign]


def first_given(forward: Callable[..., Any], outputs: Sequence[Tensor]) -> Callable[..., Any]:
    coming = iter(outputs)

    def replayed(*arguments: Any, **named: Any) -> Any:
        output = next(coming, None)
        return forward(*arguments, **named) if output is None else output.clone()

    return replayed
