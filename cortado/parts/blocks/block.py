"""Block: a part that stands in a module's place, and may keep that module inside."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.parts.part import Arrays, Part

ORIGINAL = "original"
"""The kind of the array that is the module which stood there; it has the name `inner`."""
INNER = "inner"


@dataclass(frozen=True, eq=False)
class Execution:
    """Which samples of the last batch ran what a block keeps inside: `ran` (N,) bool, or None if all always do."""

    ran: Tensor | None = None


class Block(Part):
    """Stands in a module's place.  Its tensors are weights of the network: pruned, rounded, cut and stored like any others.

    `from_parts` gets the facts and, if `arrays` is {"inner": ORIGINAL}, the module that stood there, and returns a block
    whose tensors have their shapes; a file fills in the values. What is inside keeps the paths that it had in the
    network, in `state_dict` too, and the block answers for its attributes. A block that keeps a module holds its own
    tensors in child modules.
    """

    stands_in = True
    arrays: ClassVar[dict[str, str]] = {}

    @property
    def kept(self) -> nn.Module | None:
        """Return the module that stood in the block's place, if the block keeps it."""
        return self._modules.get(INNER) if INNER in self.arrays else None

    def parts(self) -> Arrays:
        return {} if self.kept is None else {INNER: self.kept}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> Self:
        return cls(**parts, **spec)

    def execution(self) -> Execution:
        """Return which samples of the last batch ran what is inside; measured, never assumed."""
        return Execution()

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield modules as nn.Module does, but those of the kept module with the paths that they had before."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                path = prefix if module is self.kept else f"{prefix}.{name}".lstrip(".")
                yield from module.named_modules(memo, path, remove_duplicate)

    def state_dict(self, *given: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Return the state as nn.Module does, with the names that the kept module's tensors had before."""
        found = super().state_dict(*given, destination=destination, prefix=prefix, keep_vars=keep_vars)
        inside = f"{prefix}{INNER}."
        for name in [name for name in found if self.kept is not None and name.startswith(inside)]:
            found[prefix + name.removeprefix(inside)] = found.pop(name)
        return found

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if set(cls.arrays) - {INNER}:
            raise TypeError(
                f"{cls.__name__}: a block has no arrays but {INNER!r}; its tensors are stored by themselves."
            )

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(to_inside)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the block, or else of the module that it keeps."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            kept = self.__dict__.get("_modules", {}).get(INNER)
            if kept is None or name == INNER:
                raise
            return getattr(kept, name)


def to_inside(block: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename loaded tensors of the kept module, which have the names of before (a load_state_dict hook)."""
    if block.kept is None:
        return
    inside = {f"{prefix}{name}" for name in block.kept.state_dict()}
    for name in [name for name in state if name in inside]:
        state[f"{prefix}{INNER}.{name.removeprefix(prefix)}"] = state.pop(name)


def stand_in(network: nn.Module, before: nn.Module, block: Block) -> None:
    """Put a block in every place of a network where the module `before` stands; the block may keep it inside.

    Raises BadNetwork for the network itself, and for a block whose own names are also those of the module it keeps.
    """
    if before is network:
        raise BadNetwork("blocks: a block cannot stand in the place of the whole network. Choose a module inside it.")
    if block.kept is not None:
        own = {name for name, _ in block.named_children()} - {INNER}
        shared = own & {*before._modules, *before._parameters, *before._buffers}
        if shared or any(True for _ in (*block._parameters, *block._buffers)):
            what = (
                f"{min(shared)!r} is also a name in {type(before).__name__}" if shared else "it has tensors of its own"
            )
            raise BadNetwork(
                f"blocks: {type(block).__name__} cannot keep {type(before).__name__} inside: {what}. "
                "Give the block's tensors to child modules with names of their own."
            )
    inside = {id(module) for module in block.modules()}
    for parent in list(network.modules()):
        if id(parent) not in inside:
            for name, child in list(parent._modules.items()):
                if child is before:
                    parent._modules[name] = block


def blocks_in(network: nn.Module) -> list[tuple[str, Block]]:
    """Return the blocks of a network with their paths, in module order; at one path those inside come first."""
    found: dict[str, list[Block]] = {}
    for path, module in network.named_modules():
        if isinstance(module, Block):
            found.setdefault(path, []).insert(0, module)
    return [(path, block) for path, several in found.items() for block in several]


def numbered(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules of a network by path, in order; where a block keeps a module, the module it keeps."""
    return list(dict(network.named_modules()).items())
