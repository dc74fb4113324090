"""Block: a part that stands in a module's place, and may keep that module inside."""

import re
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.parts.part import Arrays, Part

ORIGINAL = "original"
"""The kind of the array that is the module which stood there; it has the name `inner`."""
INNER = "inner"
LOADING = "prefix_while_loading"


class Block(Part):
    """Stands in a module's place.  Its tensors are weights of the network: pruned, rounded, cut and stored like any others.

    `from_parts` gets the facts and, if `arrays` is {"inner": ORIGINAL}, the module that stood there, and returns a block
    whose tensors have their shapes; a file fills in the values. What only some samples need is chosen with ChooseRows (see
    rows.py). What is inside keeps the paths that it had in the network, in `state_dict` too, and the block answers for its
    attributes. A block that keeps a module holds its own tensors in child modules. torch.export and torch.func run such a
    network; a graph of torch.fx.symbolic_trace can only be read, since it calls a kept layer by the path that now leads to
    the block.
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

    def as_layer(self) -> nn.Module | None:
        """Return a layer of torch that computes the same in eval mode; None where no single layer does."""
        return None

    @abstractmethod
    def forward(self, *given: Any, **named: Any) -> Any:
        """Return what the module in its place would, from the same arguments."""

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
        if self.kept is not None:
            inside = f"{prefix}{INNER}."
            for name in [name for name in found if name.startswith(inside)]:
                found[prefix + name.removeprefix(inside)] = found.pop(name)
            note_versions(getattr(found, "_metadata", {}), prefix)
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
        self.register_load_state_dict_post_hook(to_outside)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the block, or else of the module that it keeps."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            kept = self.__dict__.get("_modules", {}).get(INNER)
            # Python asks for names such as __deepcopy__: what the kept module says of them is not true of the block.
            if kept is None or name == INNER or name.startswith("__"):
                raise
            return getattr(kept, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the block; a tensor of the kept module goes there (torch.func, torch.export swap them by path)."""
        tensors = self.kept_tensors(name) if isinstance(value, Tensor) else None
        if tensors is None:
            super().__setattr__(name, value)
        else:
            tensors[name] = value

    def kept_tensors(self, name: str) -> dict[str, Any] | None:
        """Return the parameters or buffers among which the kept module has `name`; None if it has no such tensor."""
        kept = self.__dict__.get("_modules", {}).get(INNER)
        while isinstance(kept, Block) and kept.kept is not None:
            kept = kept.kept
        stores = () if kept is None else (kept._parameters, kept._buffers)
        return next((store for store in stores if name in store), None)


def note_versions(metadata: dict[str, Any], prefix: str) -> None:
    """Note the versions of what a block keeps under the names of before too: the original network reads such a state."""
    inside = f"{prefix}{INNER}"
    for path in [path for path in metadata if path == inside or path.startswith(f"{inside}.")]:
        metadata[(prefix + path.removeprefix(inside).removeprefix(".")).removesuffix(".")] = metadata[path]


def to_inside(block: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename loaded tensors of the kept module, which have the names of before (a load_state_dict hook)."""
    if block.kept is None:
        return
    own = {name for name, _ in block.named_children()} - {INNER}
    for name in [name for name in state if name.startswith(prefix)]:
        if name.removeprefix(prefix).partition(".")[0] not in own:
            state[f"{prefix}{INNER}.{name.removeprefix(prefix)}"] = state.pop(name)
    block.__dict__[LOADING] = prefix


def to_outside(block: Any, keys: Any) -> None:
    """Name missing and unexpected tensors of the kept module as before (a load_state_dict hook)."""
    prefix = block.__dict__.pop(LOADING, None)
    if prefix is not None:
        for names in keys:
            names[:] = [re.sub(f"^{re.escape(prefix + INNER)}\\.", lambda _: prefix, name) for name in names]


def stand_in(network: nn.Module, before: nn.Module, block: Block) -> nn.Module:
    """Put a block in every place of a network where the module `before` stands, and return the network.

    The block may keep that module inside. In the place of the whole network it has to, and then it is the network. Raises
    BadNetwork if it does not, and for a block whose own names are also those of the module it keeps.
    """
    if before is network and block.kept is not before:
        raise BadNetwork(
            f"blocks: {type(block).__name__} cannot stand in the place of the whole network, which it does not keep inside. "
            "Choose a module inside it."
        )
    clash = None if block.kept is None else clash_of(block, before)
    if clash is not None:
        raise BadNetwork(
            f"blocks: {type(block).__name__} cannot keep {type(before).__name__} inside: {clash}. "
            "Give the block's tensors to child modules with names of their own."
        )
    if before is network:
        return block
    inside = {id(module) for module in block.modules()}
    for parent in list(network.modules()):
        if id(parent) not in inside:
            for name, child in list(parent._modules.items()):
                if child is before:
                    parent._modules[name] = block
    return network


def take_off(network: nn.Module, block: Block) -> nn.Module:
    """Put what a block keeps back into every place of a network where the block stands, and return the network.

    Raises BadNetwork for a block that keeps nothing.
    """
    kept = block.kept
    if kept is None:
        raise BadNetwork(f"blocks: {type(block).__name__} keeps no module that could stand in its place again.")
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is block:
                parent._modules[name] = kept
    return kept if network is block else network


def clash_of(block: Block, before: nn.Module) -> str | None:
    """Return why a block and the module it keeps cannot share a path; None if they can."""
    if any(True for _ in (*block._parameters, *block._buffers)):
        return "it has tensors of its own"
    own, taken, inside = {name for name, _ in block.named_children()} - {INNER}, set[str](), before
    while isinstance(inside, Block) and inside.kept is not None:
        taken |= inside._modules.keys() - {INNER}
        inside = inside.kept
    taken |= {*inside._modules, *inside._parameters, *inside._buffers}
    hidden = {name for name in taken if name in vars(block) or hasattr(type(block), name)}
    shared = own & taken | taken & {INNER} | hidden
    return f"{min(shared)!r} is also a name in {type(before).__name__}" if shared else None


def innermost(module: nn.Module) -> nn.Module:
    """Return the module that blocks keep, whatever stands around it; the module itself if it is no such block."""
    while isinstance(module, Block) and module.kept is not None:
        module = module.kept
    return module


def blocks_in(network: nn.Module) -> list[tuple[str, Block]]:
    """Return the blocks of a network with their paths, in module order; at one path those inside come first."""
    found: dict[str, list[Block]] = {}
    for path, module in network.named_modules():
        if isinstance(module, Block):
            found.setdefault(path, []).insert(0, module)
    return [(path, block) for path, several in found.items() for block in several]


def holder_of(module: nn.Module, name: str) -> nn.Module:
    """Return the module that really holds the child `name` of a module: what a block keeps has the block's path."""
    while isinstance(module, Block) and name not in module._modules and module.kept is not None:
        module = module.kept
    return module


def brought_along(network: nn.Module) -> set[int]:
    """Return the ids of the modules that blocks have beside what they keep."""
    found = set()
    for _, block in blocks_in(network):
        kept = set() if block.kept is None else set(block.kept.modules())
        found |= {id(module) for module in block.modules() if module not in kept and module is not block}
    return found


def numbered(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules of a network by path, in order; where a block keeps a module, the module it keeps."""
    return list(dict(network.named_modules()).items())
