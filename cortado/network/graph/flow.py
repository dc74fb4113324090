"""Flow: which values pass between operators in one run, and at which layers each of them is an input or output.

Operators inside a layer of a known kind are one step. In-place operators create new values.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.parts.activations.quantizer import INPUT, OUTPUT, unrounded
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.part import own_modules
from cortado.running.trees import tensors_in, to_device

MATMUL, JOIN, MOVE, CLIP, NORM, FLOAT = "product", "join", "move", "clip", "norm", "float"
LAYERS: dict[type[nn.Module], str] = {
    nn.Linear: MATMUL, nn.Conv1d: MATMUL, nn.Conv2d: MATMUL, nn.Conv3d: MATMUL,
    nn.ConvTranspose1d: MATMUL, nn.ConvTranspose2d: MATMUL, nn.ConvTranspose3d: MATMUL,
    nn.BatchNorm1d: NORM, nn.BatchNorm2d: NORM, nn.BatchNorm3d: NORM, ScaleShift: NORM,
    nn.ReLU: CLIP, nn.ReLU6: CLIP, nn.Hardtanh: CLIP,
}  # fmt: skip
"""Layers that count as one step."""
OPERATORS = {
    "convolution": MATMUL, "addmm": MATMUL, "mm": MATMUL, "linear": MATMUL,
    "add": JOIN, "add_": JOIN, "cat": JOIN, "mul": JOIN, "mul_": JOIN, "mean": JOIN,
    "avg_pool1d": JOIN, "avg_pool2d": JOIN, "_adaptive_avg_pool2d": JOIN,
    "relu": CLIP, "relu_": CLIP, "clamp": CLIP, "clamp_": CLIP, "clamp_min": CLIP, "hardtanh": CLIP, "hardtanh_": CLIP,
    "max_pool2d_with_indices": MOVE, "max_pool2d": MOVE, "constant_pad_nd": MOVE, "reflection_pad2d": MOVE,
    "view": MOVE, "_unsafe_view": MOVE, "reshape": MOVE, "slice": MOVE, "select": MOVE, "permute": MOVE,
    "transpose": MOVE, "t": MOVE, "squeeze": MOVE, "unsqueeze": MOVE, "expand": MOVE, "clone": MOVE,
    "alias": MOVE, "detach": MOVE, "split": MOVE, "split_with_sizes": MOVE, "unbind": MOVE, "index_select": MOVE,
    "upsample_nearest2d": MOVE, "flip": MOVE, "contiguous": MOVE, "_to_copy": MOVE, "pixel_shuffle": MOVE,
}  # fmt: skip
"""The effect of operators on an activation's values: joined, moved unchanged, clipped; all others compute in floats."""
PAIRS = ("add", "add_", "mul", "mul_")
"""These join two activations; with a scalar they are arithmetic on one activation."""


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
        self.inside += layer_kind(module) is not None

    def leave(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        """Record a module that has run."""
        path, read, kind = self.stack.pop(), self.entered.pop(), layer_kind(module)
        self.inside -= kind is not None
        if kind is not None and not self.inside and isinstance(output, Tensor):
            made = self.renew(output)
            inputs = () if read is None else (read,)
            above = isinstance(module, nn.ReLU) or (isinstance(module, nn.Hardtanh) and module.min_val >= 0)
            self.flow.steps.append(FlowStep(kind, type(module).__name__, path, inputs, (made,), 0.0 if above else 1.0))
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
        kind = OPERATORS.get(name, FLOAT)
        if (name in PAIRS and len(read) < 2) or (name == "constant_pad_nd" and any(args[2:])):
            # Arithmetic on a single activation, or clipping bounds that may not be on a grid.
            kind = FLOAT
        below = 0.0 if kind == CLIP and above_zero(name, args, kwargs or {}) else slope_below(name, args)
        self.flow.steps.append(FlowStep(kind, name, self.stack[-1] if self.stack else "", read, made, below))
        return output


def above_zero(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether the operator's lower bound is zero or above; the default is -1 for hardtanh, none for clamp."""
    low = args[1] if len(args) > 1 else named.get("min_val", named.get("min"))
    return name in ("relu", "relu_") or (isinstance(low, (int, float)) and low >= 0)


def slope_below(name: str, args: tuple[Any, ...]) -> float:
    """Return the slope below zero of a leaky ReLU, or a PReLU's largest; 1 for all others and for steeper slopes."""
    if name in ("leaky_relu", "leaky_relu_"):
        return min(abs(float(args[1])) if len(args) > 1 else 0.01, 1.0)
    if name in ("prelu", "_prelu_kernel"):
        return min(float(args[1].detach().abs().max()), 1.0)
    return 1.0


def layer_kind(module: nn.Module) -> str | None:
    """Return the effect of a layer of a known kind if it runs its class's own forward."""
    kind = next((known for known in LAYERS if isinstance(module, known)), None)
    return LAYERS[kind] if kind is not None and type(module).forward is kind.forward else None


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
