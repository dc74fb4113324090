"""Replay: compute a network's outputs after a change to one layer, without running the layers before it again."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cortado.network.compare.divergence import output_rows
from cortado.network.graph.trace import undisturbed
from cortado.running.trees import map_tensors, tensors_in
from cortado.task.outputs.outputs import Outputs, Rows, in_float64

MOST_BYTES = 512 << 20
"""Most bytes of cached outputs, and half of the memory needed to cache; outputs that do not fit are recomputed."""
END = 1 << 62
HARMLESS = (Tensor, int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size)
"""Argument types that a layer can only read, or, for tensors, change detectably."""


@dataclass
class Kept:
    """A cached output; with `alias` the tensor itself is returned while its version is still `version`."""

    value: Tensor
    alias: bool = False
    version: int = 0

    def make_alias(self, output: Tensor, version: int) -> None:
        """Return the output itself from now on, if it is unchanged and holds no more memory than its own."""
        same = output._version == version and torch.equal(output, self.value)
        if same and output.untyped_storage().nbytes() == output.nbytes:
            self.value, self.alias, self.version = output.detach(), True, version

    @property
    def invalidated(self) -> bool:
        return self.alias and self.value._version != self.version


@dataclass
class Batch:
    """Inputs and the rows of their outputs, float64; for each module the numbers at which its calls ended, with cached outputs;
    and for each module and tensor, by id, the number of calls that had ended at its first use.
    """

    inputs: Any
    wanted: Rows
    calls: dict[nn.Module, list[tuple[int, Kept | None]]] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)


class Replay:
    """A network in eval mode, with the cached outputs of its leaf layers for some batches.

    Modules may be changed and restored between calls; everything else has to stay. A layer runs again if it does
    anything but return a new tensor (writes to its input, returns a view of it, keeps state). The whole network runs
    again if it draws random numbers or if the cache does not reproduce its outputs.
    """

    def __init__(self, network: nn.Module, batches: Sequence[Any], kind: Outputs, most_bytes: int = MOST_BYTES) -> None:
        self.network, self.kind, self.left = network, kind, most_bytes
        self.parts = {module: [module, *replayed_tensors(module)] for module in network.modules()}
        self.batches = [self.recorded(inputs) for inputs in batches]
        if not all(self.sound(number) for number in reversed(range(len(self.batches)))):
            self.forget()

    def recorded(self, inputs: Any) -> Batch:
        """Run a batch and record its calls in the order in which they end."""
        batch, running, holders, ended = Batch(inputs, Tensor()), list[nn.Module](), set[nn.Module](), 0
        given_out = list[tuple[Kept, Tensor, int]]()

        def use(*parts: Any) -> None:
            for part in parts:
                batch.used.setdefault(id(part), ended)

        def watched(module: nn.Module, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
            nonlocal ended
            use(module)
            holders.update(running)
            running.append(module)
            before = state_of(module, (given, named))
            output = forward(*given, **named)
            running.pop()
            ended += 1
            pure = module not in holders and before is not None and before == state_of(module, (given, named))
            kept = self.kept(output, tensors_in((given, named))) if pure else None
            batch.calls.setdefault(module, []).append((ended, kept))
            if kept is not None:
                given_out.append((kept, output, output._version))
            return output

        # The network itself always runs, from the start; a script's forward cannot be replaced.
        every = [module for module in self.network.modules() if not isinstance(module, torch.jit.ScriptModule)]
        modules = [module for module in every if module is not self.network]
        forwards = {module: functools.partial(watched, module, module.forward) for module in modules}
        ids = {id(one) for one in self.parts[self.network]}
        with undisturbed(self.network), replaced_forwards(forwards), Uses(ids, use):
            state = torch.random.get_rng_state()
            batch.wanted = in_float64(output_rows(self.network, own(inputs), self.kind))
            if not torch.equal(state, torch.random.get_rng_state()):
                self.left = 0
                batch.calls.clear()
        for one, output, version in given_out:
            one.make_alias(output, version)
        return batch

    def kept(self, output: Any, read: Sequence[Tensor]) -> Kept | None:
        """Return a copy of an output that belongs to the layer alone: later operators may change it in place."""
        if not isinstance(output, Tensor) or output.nbytes > self.left or not output.nbytes:
            return None
        if any(shares_memory(output, one) for one in (*read, *replayed_tensors(self.network))):
            return None
        self.left -= output.nbytes
        return Kept(output.detach().clone())

    def sound(self, number: int) -> bool:
        """Return whether the cache reproduces the recorded outputs."""
        batch = self.batches[number]
        try:
            pairs = zip(tensors_in(self.run(batch, END)), tensors_in(batch.wanted), strict=True)
            return all(torch.allclose(one, two, rtol=1e-4, atol=1e-6, equal_nan=True) for one, two in pairs)
        except Exception:  # noqa: BLE001 - whatever it is, the network does not bear it
            return False

    def forget(self) -> None:
        """Drop the cache: everything runs again from now on."""
        for batch in self.batches:
            batch.calls.clear()

    def answers(self, number: int, changed: Sequence[nn.Module]) -> Rows:
        """Return the rows of the network's outputs for a batch after a change to these modules, float64."""
        batch = self.batches[number]
        used = [batch.used.get(id(part)) for module in changed for part in self.parts[module]]
        return self.run(batch, min((number for number in used if number is not None), default=0))

    def run(self, batch: Batch, first: int) -> Rows:
        """Return a batch's outputs, using the cache for all calls that ended before number `first`."""
        forwards = {}
        for module, calls in batch.calls.items():
            outputs = [output for at, output in calls if at <= first]
            given = [output for output in outputs if output is not None]
            if given and len(given) == len(outputs):
                forwards[module] = functools.partial(replayed, module.forward, iter(given))
        with undisturbed(self.network), replaced_forwards(forwards):
            found = in_float64(output_rows(self.network, own(batch.inputs), self.kind))
        if any(kept is not None and kept.invalidated for calls in batch.calls.values() for _, kept in calls):
            self.forget()
        return found


class Uses(TorchDispatchMode):
    """Reports which tensors with the given ids each operator uses."""

    def __init__(self, ids: set[int], use: Callable[..., None]) -> None:
        super().__init__()
        self.ids, self.use = ids, use

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.use(*(one for one in tensors_in((arguments, named or {})) if id(one) in self.ids))
        return operator(*arguments, **(named or {}))


def replayed_tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def state_of(module: nn.Module, arguments: Any) -> list[Any] | None:
    """Return tensor versions and layer state, which a call must not change; None where a change could go undetected."""
    given, named = arguments
    if not all(isinstance(one, HARMLESS) for one in (*given, *named.values())):
        return None
    tensors = [*tensors_in((given, named)), *replayed_tensors(module)]
    attributes = {
        name: (id(value), len(value) if isinstance(value, (list, dict, set)) else 0)
        for name, value in vars(module).items()
    }
    return [attributes, [(id(one), one._version) for one in tensors]]


def shares_memory(output: Tensor, other: Tensor) -> bool:
    """Return whether two tensors share storage."""
    return output.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def own(value: Any) -> Any:
    """Return the same tree with copied tensors: a network may change its inputs."""
    return map_tensors(Tensor.clone, value)


@contextlib.contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Replace the forwards of modules inside the block."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward  # type: ignore[method-assign, assignment]
        yield
    finally:
        for module, own_forward in before.items():
            module.__dict__.pop("forward", None)
            if own_forward is not None:
                module.forward = own_forward  # type: ignore[method-assign]


def replayed(forward: Callable[..., Any], coming: Iterator[Kept], *arguments: Any, **named: Any) -> Any:
    """Return the cached output while there is one, then run the forward."""
    output = next(coming, None)
    if output is None:
        return forward(*arguments, **named)
    return output.value if output.alias else output.value.clone()
