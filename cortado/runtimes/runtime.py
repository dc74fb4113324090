"""Runtime: something that runs networks.  Each is one file of this folder, found by its name."""

import importlib
import importlib.metadata
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue, MissingPackage
from cortado.report.record import Edge
from cortado.running.trees import tensors_in


@dataclass(frozen=True)
class Port:
    """One input of a file: None stands for an axis of any length, such as the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


class Session(Protocol):
    """A file made ready to run, with so many threads."""

    inputs: tuple[Port, ...]

    def __call__(self, *activations: Tensor) -> tuple[Tensor, ...]:
        """The outputs for one batch, in order."""


class Runtime(ABC):
    """Lowers a network to files of its own and runs them.

    `package` is what has to be importable, `extra` what installs it ("" when it comes with torch), `suffix` ends the
    name of its main file. `quick` runtimes are measured beside any other, as rivals. `floats` are the types of floats that
    can be given to it; not every operator has to know them all.
    """

    package: ClassVar[str] = "torch"
    distribution: ClassVar[str] = "torch"
    extra: ClassVar[str] = ""
    suffix: ClassVar[str]
    quick: ClassVar[bool] = True
    floats: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.float64, torch.float16)
    script: ClassVar[str] = ""
    """Lines of Python that need nothing of ours: from the path FILE they make predict(*inputs), the first output for a batch."""

    @classmethod
    def name(cls) -> str:
        """The name of its file."""
        return cls.__module__.rpartition(".")[2]

    def available(self) -> bool:
        """Whether files can be run here."""
        return importlib.util.find_spec(self.package) is not None

    def lowers(self) -> bool:
        """Whether files can be made here as well."""
        return self.available()

    def version(self) -> str:
        """The installed version, or "not installed"."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    def require(self) -> None:
        """Raises MissingPackage with what to install."""
        if not self.available():
            raise MissingPackage(
                f"runtime: {self.name()} is not installed here. Install it: pip install -e '.[{self.extra}]' in Cortado's folder."
            )

    def require_lowering(self) -> None:
        """Raises MissingPackage, with what to install, where files cannot be made."""
        self.require()

    def require_floats(self, network: nn.Module, example: Any) -> None:
        """Raises BadNetwork when the network or its example holds floats that the runtime never takes."""
        strange = [dtype for dtype in float_types(network, example) if dtype not in self.floats]
        if strange:
            raise BadNetwork(
                f"{self.name()}: {type(network).__name__} holds {type_name(strange[0])}, which this runtime does not take. "
                "Call .float() on the network and on its inputs first, or export to torch_eager."
            )

    @abstractmethod
    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        """Write the network (eval mode, dense weights) for any batch into `folder`; gives the main file.

        Raises MissingPackage, and BadNetwork for what torch cannot trace or the runtime does not know.
        """

    @abstractmethod
    def load(self, file: Path, threads: int) -> Session:
        """Make a file ready to run with `threads` threads.  Raises MissingPackage; BadFile for no such file."""

    def integer_layers(self, file: Path) -> frozenset[str] | None:
        """The paths of the layers whose products it computes in whole numbers; None when it does not tell."""
        return None

    def float_operators(self, file: Path) -> tuple[str, ...]:
        """Return the operators that it computes in floats, where it can tell them but no layers; else nothing."""
        return ()

    def edges(self, file: Path) -> tuple[Edge, ...]:
        """Return the inputs and outputs of a file that may be whole numbers; nothing where they are the network's own."""
        return ()

    def packed_layers(self, file: Path) -> dict[str, int] | None:
        """The linear layers whose weights the file holds as packed codes, and their bits; None when it never does."""
        return None


def float_types(network: nn.Module, example: Any) -> list[torch.dtype]:
    """The types of floats that parameters, buffers and the example have, each once."""
    tensors = (*network.parameters(), *network.buffers(), *tensors_in(example))
    return list(dict.fromkeys(tensor.dtype for tensor in tensors if tensor.is_floating_point()))


def type_name(dtype: torch.dtype) -> str:
    """float64 for torch.float64."""
    return str(dtype).removeprefix("torch.")


def class_name(name: str) -> str:
    """torch_eager -> TorchEager."""
    return "".join(part.capitalize() for part in name.split("_"))


def known_runtimes() -> list[str]:
    """The names of all runtimes, installed or not: the files here that define the class their name says."""
    found = []
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"cortado.runtimes.{info.name}")
        kind = getattr(module, class_name(info.name), None)
        if isinstance(kind, type) and issubclass(kind, Runtime) and kind is not Runtime:
            found.append(info.name)
    return found


def runtime_by_name(name: str) -> Runtime:
    """The runtime called `name`.  Raises BadValue when there is none."""
    known = known_runtimes()
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BadValue(f"runtime: there is no runtime {name!r}.{hint} Known: {', '.join(known)}.")
    return getattr(importlib.import_module(f"cortado.runtimes.{name}"), class_name(name))()


def installed(names: Sequence[str]) -> list[Runtime]:
    """The runtimes called `names`, to make files for and run.  Raises BadValue for an unknown one, MissingPackage."""
    runtimes = [runtime_by_name(name) for name in names]
    for runtime in runtimes:
        runtime.require_lowering()
    return runtimes


def rivals() -> list[Runtime]:
    """Every runtime that is installed, can make its files here, and does so quickly."""
    runtimes = [runtime_by_name(name) for name in known_runtimes()]
    return [runtime for runtime in runtimes if runtime.quick and runtime.available() and runtime.lowers()]


def runtime_of_file(file: Path) -> Runtime:
    """The runtime whose files end as this one does, a quick one if there is one.  Raises BadValue when none does."""
    by_suffix: dict[str, Runtime] = {}
    for runtime in sorted((runtime_by_name(name) for name in known_runtimes()), key=lambda one: not one.quick):
        by_suffix.setdefault(runtime.suffix, runtime)
    if file.suffix not in by_suffix:
        known = ", ".join(f"{suffix} ({runtime.name()})" for suffix, runtime in by_suffix.items())
        raise BadValue(f"bench: no runtime is known for {file.name}, got {file.suffix!r}. Known: {known}.")
    return by_suffix[file.suffix]


class Running(nn.Module):
    """A session that is called as a network is; a batch that the file fixes is filled up and cut again."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def forward(self, *activations: Tensor) -> Any:
        fixed = self.session.inputs[0].shape[0] if self.session.inputs and self.session.inputs[0].shape else None
        found = (
            self.session(*activations) if fixed in (None, len(activations[0])) else self.in_parts(activations, fixed)
        )
        return found[0] if len(found) == 1 else found

    def in_parts(self, activations: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
        """Run `size` samples at a time, the last ones filled up with copies of the last sample."""
        count = len(activations[0])
        parts = []
        for start in range(0, count, size):
            numbers = torch.arange(start, start + size).clamp(max=count - 1)
            parts.append(self.session(*(activation[numbers] for activation in activations)))
        return tuple(torch.cat(column)[:count] for column in zip(*parts, strict=True))
