"""Flow: which values pass between operators in one run, and at which layers each of them is an input or output.

Operators inside a layer of a known kind are one step. In-place operators create new values.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cortado.layers.kinds import kind_of, role_of
from cortado.layers.roles import CLIP, MATMUL, NORM
from cortado.network.graph.operators.table import facts_of
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.parts.activations.quantizer import INPUT, OUTPUT, unrounded
from cortado.parts.part import own_modules
from cortado.running.trees import tensors_in, to_device

STEPS = (MATMUL, NORM, CLIP)
"""Roles of layers that count as one step."""


@dataclass(frozen=True)
class FlowStep:
    """One operator, or one layer of a known kind: its effect, its values, and the innermost module that ran it."""

    kind: str
    name: str
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    below: float = 1.0
    """The factor on values below zero: 0 for a ReLU, the slope of a leaky ReLU, else 1."""
    homogeneous: bool = False
    """Whether a positive factor on a channel passes unchanged."""

    @property
    def above_zero(self) -> bool:
        """Return whether nothing below zero passes."""
        return self.below == 0


@dataclass
class Flow:
    """Values are numbered in order of appearance; `places` lists where each passes: (path of the module, side)."""

    steps: list[FlowStep] = field(default_factory=list)
    places: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    given: frozenset[int] = frozenset()
    """The network's inputs."""
    results: frozenset[int] = frozenset()
    """The network's outputs."""

    def readers(self) -> dict[int, list[FlowStep]]:
        """Return the steps that read each value, in order."""
        found: dict[int, list[FlowStep]] = {}
        for step in self.steps:
            for value in dict.fromkeys(step.inputs):
                found.setdefault(value, []).append(step)
        return found


class ValueNumbering(TorchDispatchMode):
    """Numbers values: a tensor, until something writes to it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.flow = Flow()
        self.paths = {id(module): path for path, module in own_modules(network).items()}
        self.numbers: dict[int, int] = {}
        self.count = 0
        self.kept: list[Tensor] = []
        """Every tensor seen, kept alive so that ids stay unique."""
        self.stack: list[str] = []
        self.inside = 0
        """The number of running layers of a known kind; their operators are one step."""
        self.fixed = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
        self.entered: list[int | None] = []

    def number(self, tensor: Tensor) -> int:
        """Return the number of a tensor's present value."""
        if id(tensor) not in self.numbers:
            return self.renew(tensor)
        return self.numbers[id(tensor)]

    def renew(self, tensor: Tensor) -> int:
        """Give a tensor a new value number."""
        self.kept.append(tensor)
        self.numbers[id(tensor)] = self.count
        self.count += 1
        return self.numbers[id(tensor)]

    def values(self, given: Any) -> tuple[int, ...]:
        """Return the value numbers of the tensors in an argument, weights excluded."""
        return tuple(self.number(tensor) for tensor in tensors_in(given) if id(tensor) not in self.fixed)

    def enter(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Enter a module that starts to run."""
        path = self.paths[id(module)]
        self.flow.calls[path] = self.flow.calls.get(path, 0) + 1
        read = self.values((given, named))[:1]
        self.entered.append(read[0] if read else None)
        if read and not self.inside:
            self.flow.places.setdefault(read[0], []).append((path, INPUT))
        self.stack.append(path)
        self.inside += step_role(module) is not None

    def leave(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        """Record a module that has run."""
        path, read, kind = self.stack.pop(), self.entered.pop(), step_role(module)
        self.inside -= kind is not None
        if kind is not None and not self.inside and isinstance(output, Tensor):
            made = self.renew(output)
            inputs = () if read is None else (read,)
            facts = kind_of(module)
            assert facts is not None
            self.flow.steps.append(
                FlowStep(kind, type(module).__name__, path, inputs, (made,), facts.below(module), facts.homogeneous)
            )
        if isinstance(output, Tensor) and not self.inside:
            self.flow.places.setdefault(self.number(output), []).append((path, OUTPUT))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        read = () if self.inside else self.values((args, kwargs or {}))
        output = func(*args, **(kwargs or {}))
        if self.inside:
            return output
        if not read and tensors_in((args, kwargs or {})):
            # Results of weights alone are not activations.
            self.kept.extend(tensors_in(output))
            self.fixed.update(id(tensor) for tensor in tensors_in(output))
            return output
        name = func.overloadpacket.__name__
        made = tuple(self.renew(tensor) for tensor in tensors_in(output))
        facts, named = facts_of(name), kwargs or {}
        role = facts.role_in(args, named, len(read))
        path = self.stack[-1] if self.stack else ""
        self.flow.steps.append(FlowStep(role, name, path, read, made, facts.below(args, named), facts.homogeneous))
        return output


def step_role(module: nn.Module) -> str | None:
    """Return the role of a layer that counts as one step."""
    role = role_of(module)
    return role if role in STEPS else None


def flow_of(network: nn.Module, example: Any) -> Flow:
    """Run `network` once on `example` in eval mode, without quantizers, and return which values passed where.

    Raises BadNetwork when the network fails on the example.
    """
    watcher, handles = ValueNumbering(network), []
    given = to_device(example, device_of(network))
    watcher.flow.given = frozenset(watcher.values(given))
    try:
        for module in own_modules(network).values():
            handles.append(module.register_forward_pre_hook(watcher.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(watcher.leave, always_call=True))
        with unrounded(network), undisturbed(network), watcher:
            output = call_with(network, given)
    finally:
        for handle in handles:
            handle.remove()
    watcher.flow.results = frozenset(watcher.values(output))
    return watcher.flow
