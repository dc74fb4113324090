"""Node: one operator of a file with what is known of its inputs, and the modules that a rule makes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from cortado.errors import BadNetwork
from cortado.nets.from_onnx.reading import OnnxNode

BATCHES = (2, 3)
"""A network is built for both: what differs between them depends on the batch."""


@dataclass(frozen=True)
class Value:
    """One value of the file, for each of the two batches: a tensor, on the meta device where it is computed at run time.

    `name` is the initializer's, for weights that several operators share.
    """

    held: tuple[Tensor, ...]
    place: fx.Node | None = None
    name: str = ""

    @property
    def static(self) -> bool:
        """Return whether it is known without the inputs."""
        return self.place is None

    @property
    def fixed(self) -> bool:
        """Return whether it is known and the same for every batch."""
        first, other = self.held[0], self.held[-1]
        return self.static and first.shape == other.shape and first.dtype == other.dtype and torch.equal(first, other)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return its shape for each batch."""
        return tuple(tuple(one.shape) for one in self.held)


class Applied(nn.Module):
    """An operator without a layer of its own in torch: a function of its inputs and of constants.

    `operands` lists its arguments: None for the next input, the name of a buffer, or a number. The settings are
    attributes, so that sizes among them follow a cut of channels.
    """

    def __init__(self, function: Callable[..., Any], operands: Sequence[Any], settings: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.settings, given = function, tuple(settings), []
        for place, one in enumerate(operands):
            if isinstance(one, Tensor):
                self.register_buffer(f"constant_{place}", one.clone())
            given.append(f"constant_{place}" if isinstance(one, Tensor) else one)
        self.operands = tuple(given)
        for name, value in settings.items():
            setattr(self, name, value)

    def forward(self, *inputs: Tensor) -> Any:
        following = iter(inputs)
        given = [
            next(following) if one is None else self.get_buffer(one) if isinstance(one, str) else one
            for one in self.operands
        ]
        return self.function(*given, **{name: getattr(self, name) for name in self.settings})

    def extra_repr(self) -> str:
        return self.function.__name__


@dataclass(frozen=True)
class Made:
    """What a rule makes: modules that run one after the other, the first on `reads`."""

    modules: tuple[nn.Module, ...]
    reads: tuple[Value, ...]


@dataclass(frozen=True)
class Node:
    """An operator with its inputs.  `batch` is the batch that a file with a fixed one has, None for an open one.

    `parameters` keeps the layers' parameters by the name of their initializer: layers that share one stay tied.
    """

    given: OnnxNode
    inputs: tuple[Value | None, ...]
    opset: int
    file: Path
    batch: int | None
    parameters: dict[Any, nn.Parameter]

    @property
    def kind(self) -> str:
        return self.given.kind

    @property
    def where(self) -> str:
        """Return the operator's kind and name, for messages."""
        return f"{self.kind} ({self.given.name or next((one for one in self.given.outputs if one), '')})"

    def refuse(self, reason: str, way_out: str) -> BadNetwork:
        """Return the error of an operator that cannot be read."""
        return BadNetwork(f"onnx: {self.file}: {self.where} {reason}. {way_out}")

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.given.attributes.get(name, default)

    def has(self, place: int) -> bool:
        """Return whether an input is given."""
        return place < len(self.inputs) and self.inputs[place] is not None

    def value(self, place: int) -> Value:
        """Return an input that must be given."""
        found = self.inputs[place] if place < len(self.inputs) else None
        if found is None:
            raise self.refuse(
                f"lacks its input number {place}", "Repair the file: onnx.checker.check_model says where."
            )
        return found

    def rank(self, place: int = 0) -> int:
        """Return the number of axes of an input."""
        return self.value(place).held[0].dim()

    def shape(self, place: int = 0) -> tuple[int, ...]:
        """Return the shape of an input for the first batch."""
        return tuple(self.value(place).held[0].shape)

    def constant(self, place: int) -> Tensor:
        """Return an input that must be a constant."""
        found = self.value(place)
        if not found.fixed:
            of = "the data" if not found.static else "the batch"
            raise self.refuse(
                f"takes its input number {place} from {of}, where a constant is expected",
                "Export the network with constant sizes, or simplify the file: onnxsim net.onnx simple.onnx.",
            )
        return found.held[0]

    def numbers(self, place: int) -> list[int]:
        """Return a constant input as whole numbers."""
        return [int(one) for one in self.constant(place).reshape(-1)]

    def listed(self, name: str, place: int, default: list[int] | None = None) -> list[int] | None:
        """Return whole numbers that are an attribute in older opsets and an input in newer ones."""
        if name in self.given.attributes:
            return [int(one) for one in self.attribute(name)]
        return self.numbers(place) if self.has(place) else default

    def axis(self, default: int = 0, place: int = 0) -> int:
        """Return the attribute axis, counted from the front."""
        axis = int(self.attribute("axis", default))
        return axis + self.rank(place) if axis < 0 else axis

    def parameter(self, place: int, turn: Callable[[Tensor], Tensor] | None = None, turned: str = "") -> nn.Parameter:
        """Return a constant input as a parameter, one for all layers that read the same initializer turned alike."""
        found = self.value(place)
        values = self.constant(place)
        key: Any = (found.name, turned) if found.name else (self.given.outputs, place)
        if key not in self.parameters:
            self.parameters[key] = nn.Parameter((turn(values) if turn else values).clone().contiguous())
        return self.parameters[key]

    def applied(self, function: Callable[..., Any], inputs: Sequence[Value | float], **settings: Any) -> Made:
        """Return an operator that applies a function to inputs, constants and numbers."""
        operands: list[Any] = []
        reads = []
        for one in inputs:
            if not isinstance(one, Value):
                operands.append(one)
            elif one.static:
                operands.append(one.held[0])
            else:
                operands.append(None)
                reads.append(one)
        return Made((Applied(function, operands, settings),), tuple(reads))


Rule = Callable[[Node], Made]
