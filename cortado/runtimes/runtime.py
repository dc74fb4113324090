"""Runtime: the base class of runtimes.  Each is one file of this folder, found by its name."""

import copy
import importlib
import importlib.metadata
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue, MissingPackage
from cortado.report.record import Edge
from cortado.running.trees import tensors_in
from cortado.runtimes.kernels.kernel import Kernel


@dataclass(frozen=True)
class Port:
    """One input of a file; None is an axis of any length, such as the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


class Ran(NamedTuple):
    """How a runtime computes a layer: the name of the kernel, and the bits of a weight in the file."""

    kernel: str
    bits: int


class Session(Protocol):
    """A loaded file, ready to run."""

    inputs: tuple[Port, ...]

    def __call__(self, *activations: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for one batch, in order."""


ROOM = "cortado.runtimes"


class Runtime(ABC):
    """Writes networks as files and runs them.

    `package` must be importable, `extra` installs it ("" if it comes with torch), `suffix` is that of its main file.
    `quick` runtimes are measured as rivals of any other. `floats` are the float types it accepts, though perhaps not for
    every operator.
    """

    package: ClassVar[str] = "torch"
    distribution: ClassVar[str] = "torch"
    extra: ClassVar[str] = ""
    suffix: ClassVar[str]
    quick: ClassVar[bool] = True
    floats: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.float64, torch.float16)
    channel_block: ClassVar[int] = 8
    """Channels that its convolutions compute at once (16 where AVX-512 is used); others are padded, or slower."""
    script: ClassVar[str] = ""
    """Python code without Cortado: from the path FILE it defines predict(*inputs), which returns the first output."""

    edge_options: ClassVar[tuple[str, ...]] = ()
    """Which of "layout" and "edges" its files may have on request (see edges.py)."""
    path_forms: ClassVar[tuple[str, ...]] = ()
    """The forms in which it can run what only some rows need (see rows.py); the export keeps the fastest."""

    rounds_inputs: bool = False
    own_operators: bool = True
    paths: str = ""
    """The form to write; "" for the first."""
    layout: str | None = None
    integer_edges: bool = False

    def __init__(self, rounds_inputs: bool = False, own_operators: bool = True) -> None:
        """With `rounds_inputs` kernels of few bits may round inputs to 8 bits: faster, with an error of about 1 %.

        Without `own_operators` files hold no operators of Cortado, which need a library beside the file.
        """
        self.rounds_inputs, self.own_operators = rounds_inputs, own_operators

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Return what it multiplies by faster than by floats, or stores in fewer bytes, in order of preference."""
        return ()

    def with_paths(self, form: str) -> Self:
        """Return the same runtime, which writes this form of paths that depend on the input."""
        made = copy.copy(self)
        made.paths = form
        return made

    @classmethod
    def name(cls) -> str:
        """Return the name of its file in this folder; for your own, package.module:Class."""
        package, _, module = cls.__module__.rpartition(".")
        return module if package == ROOM else f"{cls.__module__}:{cls.__qualname__}"

    @classmethod
    def folder_name(cls) -> str:
        """Return the name of the folder of its files in a bundle."""
        return cls.name().replace(":", ".")

    def available(self) -> bool:
        """Return whether files can be run here."""
        return importlib.util.find_spec(self.package) is not None

    def lowers(self) -> bool:
        """Return whether files can be made here too."""
        return self.available()

    def version(self) -> str:
        """Return the installed version, or "not installed"."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    def require(self) -> None:
        """Raise MissingPackage with what to install, if files cannot be run."""
        if not self.available():
            raise MissingPackage(
                f"runtime: {self.name()} is not installed here. Install it: pip install -e '.[{self.extra}]' in Cortado's folder."
            )

    def require_lowering(self) -> None:
        """Raise MissingPackage with what to install, if files cannot be made."""
        self.require()

    def require_floats(self, network: nn.Module, example: Any) -> None:
        """Raise BadNetwork if the network or its example has float types that the runtime does not accept."""
        strange = [dtype for dtype in float_types(network, example) if dtype not in self.floats]
        if strange:
            raise BadNetwork(
                f"{self.name()}: {type(network).__name__} holds {type_name(strange[0])}, which this runtime does not accept. "
                "Call .float() on the network and on its inputs first, or export to torch_eager."
            )

    @abstractmethod
    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        """Write the network (eval mode, dense weights) for any batch into `folder`; return the main file.

        Raises MissingPackage, and BadNetwork for operators that torch cannot trace or the runtime lacks.
        """

    @abstractmethod
    def load(self, file: Path, threads: int) -> Session:
        """Load a file to run with `threads` threads.  Raises MissingPackage, BadFile."""

    def placed(self, file: Path) -> dict[str, Ran] | None:
        """Return how each layer of a file is computed, by its path, where that is not in floats.

        None if the runtime does not report it.
        """
        return None

    def float_operators(self, file: Path) -> tuple[str, ...]:
        """Return the operators computed in floats, if the runtime reports operators but not layers."""
        return ()

    def edges(self, file: Path) -> tuple[Edge, ...]:
        """Return the inputs and outputs of a file if they may be integers; () if they are the network's own."""
        return ()


def float_types(network: nn.Module, example: Any) -> list[torch.dtype]:
    """Return the distinct float types of parameters, buffers and the example."""
    tensors = (*network.parameters(), *network.buffers(), *tensors_in(example))
    return list(dict.fromkeys(tensor.dtype for tensor in tensors if tensor.is_floating_point()))


def type_name(dtype: torch.dtype) -> str:
    """Return "float64" for torch.float64."""
    return str(dtype).removeprefix("torch.")


def class_name(name: str) -> str:
    """Return a runtime's class name: torch_eager -> TorchEager."""
    return "".join(part.capitalize() for part in name.split("_"))


def known_runtimes() -> list[str]:
    """Return the names of all runtimes, installed or not: the files here that define the class of their name."""
    found = []
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"cortado.runtimes.{info.name}")
        kind = getattr(module, class_name(info.name), None)
        if isinstance(kind, type) and issubclass(kind, Runtime) and kind is not Runtime:
            found.append(info.name)
    return found


def runtime_by_name(name: str, rounds_inputs: bool = False, own_operators: bool = True) -> Runtime:
    """Return the runtime called `name`, or your own by package.module:Class.  Raises BadValue if there is none."""
    if ":" in name:
        return own_runtime(name)
    known = known_runtimes()
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BadValue(
            f"runtime: there is no runtime {name!r}.{hint} Known: {', '.join(known)}. Your own is package.module:Class."
        )
    return getattr(importlib.import_module(f"{ROOM}.{name}"), class_name(name))(rounds_inputs, own_operators)


def own_runtime(name: str) -> Runtime:
    """Return an instance of package.module:Class.  Raises BadValue where it cannot be loaded or is no Runtime."""
    module, _, kind = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), kind)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise BadValue(f"runtime: {name!r} cannot be loaded ({error}). Write package.module:Class.") from error
    if not isinstance(made, Runtime):
        raise BadValue(f"runtime: {name!r} is not a Runtime. Subclass cortado.runtimes.runtime.Runtime.")
    return made


def installed(names: Sequence[str], rounds_inputs: bool = False, own_operators: bool = True) -> list[Runtime]:
    """Return the runtimes called `names`.  Raises BadValue for an unknown one, MissingPackage."""
    runtimes = [runtime_by_name(name, rounds_inputs, own_operators) for name in names]
    for runtime in runtimes:
        runtime.require_lowering()
    return runtimes


def rivals() -> list[Runtime]:
    """Return every quick runtime that is installed and can make files here."""
    runtimes = [runtime_by_name(name) for name in known_runtimes()]
    return [runtime for runtime in runtimes if runtime.quick and runtime.available() and runtime.lowers()]


def runtime_of_file(file: Path) -> Runtime:
    """Return the runtime with the file's suffix, a quick one if possible.  Raises BadValue if there is none."""
    by_suffix: dict[str, Runtime] = {}
    for runtime in sorted((runtime_by_name(name) for name in known_runtimes()), key=lambda one: not one.quick):
        by_suffix.setdefault(runtime.suffix, runtime)
    if file.suffix not in by_suffix:
        known = ", ".join(f"{suffix} ({runtime.name()})" for suffix, runtime in by_suffix.items())
        raise BadValue(f"bench: no runtime has files like {file.name}, got {file.suffix!r}. Known: {known}.")
    return by_suffix[file.suffix]


class Running(nn.Module):
    """A session with a network's interface; for a file with a fixed batch size, inputs are padded and split.

    The outputs are a file's tensors in order: one alone, several as a tuple.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def forward(self, *positional: Any, **named: Any) -> Any:
        return self.outputs(self.in_order(positional, named))

    def in_order(self, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, ...]:
        """Return the tensors of a call's arguments in the order of the file's inputs: by name where it has such names."""
        names = [port.name for port in self.session.inputs]
        if named and set(named) <= set(names):
            named = {name: named[name] for name in names if name in named}
        return tuple(tensors_in((positional, named)))

    def outputs(self, activations: tuple[Tensor, ...]) -> Any:
        """Return the outputs for a file's inputs, in order."""
        fixed = self.session.inputs[0].shape[0] if self.session.inputs and self.session.inputs[0].shape else None
        found = (
            self.session(*activations) if fixed in (None, len(activations[0])) else self.in_parts(activations, fixed)
        )
        return found[0] if len(found) == 1 else found

    def in_parts(self, activations: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
        """Run `size` samples at a time, padding with copies of the last sample; of no samples, what it gives for zeros."""
        count = len(activations[0])
        if not count:
            found = self.session(*(activation.new_zeros((size, *activation.shape[1:])) for activation in activations))
            return tuple(one[:0] for one in found)
        parts = []
        for start in range(0, count, size):
            numbers = torch.arange(start, start + size).clamp(max=count - 1)
            parts.append(self.session(*(activation[numbers] for activation in activations)))
        return tuple(torch.cat(column)[:count] for column in zip(*parts, strict=True))
