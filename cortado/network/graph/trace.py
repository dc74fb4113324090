"""Trace: run a network once and record every layer call and every operator, with shapes but no activations."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cortado.errors import BadNetwork, BadValue
from cortado.network.graph.record import Call, Operator, Shape
from cortado.parts.forms.form import Form
from cortado.parts.part import inside_parts
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode, keeping_buffers
from cortado.running.trees import tensors_in, to_device


@dataclass(frozen=True)
class Trace:
    """The record in order: calls of layers, and of any other module in whose own forward operators ran."""

    calls: tuple[Call, ...]
    batch: int

    def of(self, path: str) -> tuple[Call, ...]:
        """Return the calls of the module at `path`, in order; none if it never ran."""
        return tuple(call for call in self.calls if path in call.paths)


def trace(network: nn.Module, example: Any, batch: int | None = None) -> Trace:
    """Run `network` on `example` (a tensor, a tuple, or a dict of inputs) and return what ran.

    The network runs in eval mode without gradients; its modes, buffers, hooks and the random state are restored.
    Attention runs unfused, so that its products are recorded. Only shapes are kept, and the meta device works. An
    operator belongs to the innermost running module; operators that compute a form's dense weight are marked
    `decoding`. `batch` is the number of samples, by default the first axis of the first tensor. Raises BadNetwork
    when the network fails on the example, BadValue when the example has no tensor.
    """
    example = to_device(example, device_of(network))
    tensors = tensors_in(example)
    if not tensors or (batch is None and tensors[0].dim() == 0):
        raise BadValue("trace: the example has no tensor with a batch axis. Pass a tensor, a tuple or a dict of them.")
    recorder = Recorder(network)
    with undisturbed(network), recorder.listening():
        call_with(network, example)
    return Trace(recorder.calls(), tensors[0].shape[0] if batch is None else batch)


def call_with(network: nn.Module, inputs: Any) -> Any:
    """Call `network` on a tensor, a tuple or a dict of keyword arguments.  Raises BadNetwork when it fails."""
    try:
        return call(network, inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(inputs))
        raise BadNetwork(
            f"trace: {type(network).__name__} fails on inputs of shape {shapes}: {type(error).__name__}: {error}. "
            "Pass an example that the network runs on."
        ) from error


@contextlib.contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Use eval mode and no gradients; always restore modes, buffers and the random state."""
    devices = {parameter.device for parameter in network.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), keeping_buffers(network), eval_mode(network):
        yield


@dataclass
class OpenCall:
    """A call that is being recorded."""

    module: nn.Module
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    operators: list[Operator]


class Recorder(TorchDispatchMode):
    """Records a network: hooks track the stack of running modules, the dispatch mode sees the operators."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.opened: list[OpenCall] = []
        self.stack: list[OpenCall] = []
        self.decoding = 0
        self.forms = [module for module in network.modules() if isinstance(module, Form)]
        self.inside_parts = inside_parts(network)
        self.layers = [module for module in network.modules() if id(module) not in self.inside_parts]
        self.paths: dict[int, list[str]] = {}
        for path, module in network.named_modules(remove_duplicate=False):
            self.paths.setdefault(id(module), []).append(path)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record calls and operators of the network inside the block; all hooks are removed afterwards."""
        handles = []
        try:
            for layer in self.layers:
                handles.append(layer.register_forward_pre_hook(self.enter, with_kwargs=True))
                handles.append(layer.register_forward_hook(self.leave, always_call=True))
            for form in self.forms:
                form.__dict__["dense"] = self.marked(form.dense)
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()
            for form in self.forms:
                form.__dict__.pop("dense", None)

    def marked(self, dense: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return `dense` with the operators it runs marked as decoding."""

        def marked_dense() -> Tensor:
            self.decoding += 1
            try:
                return dense()
            finally:
                self.decoding -= 1

        return marked_dense

    def enter(self, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Enter a module that starts to run."""
        call = OpenCall(module, shapes_in((positional, named)), (), [])
        self.opened.append(call)
        self.stack.append(call)

    def leave(self, module: nn.Module, positional: tuple[Any, ...], output: Any) -> None:
        """Leave a module that has run or failed: a network may catch the error and continue."""
        self.stack.pop().outputs = shapes_in(output)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.stack:
            self.stack[-1].operators.append(
                Operator(
                    name=str(func),
                    arguments=tuple(without_tensors(value) for value in args),
                    outputs=shapes_in(output),
                    pointwise=torch.Tag.pointwise in func.tags,
                    view=func.is_view or torch.Tag.inplace_view in func.tags,
                    reduction=torch.Tag.reduction in func.tags,
                    decoding=self.decoding > 0,
                )
            )
        return output

    def calls(self) -> tuple[Call, ...]:
        """Return the recorded calls, without containers in which only other modules ran."""
        kept = [call for call in self.opened if call.operators or self.is_layer(call.module)]
        paths = {key: tuple(names) for key, names in self.paths.items()}
        return tuple(
            Call(index, paths[id(call.module)], call.module, call.inputs, call.outputs, tuple(call.operators))
            for index, call in enumerate(kept)
        )

    def is_layer(self, module: nn.Module) -> bool:
        """Return whether a module owns a weight or has no inner modules, parts aside."""
        owns = next(module.parameters(recurse=False), None) is not None
        return owns or all(id(child) in self.inside_parts for child in module.children())


def device_of(network: nn.Module) -> torch.device | None:
    """Return the device of the network's first parameter or buffer; None if it has neither."""
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return None


def shapes_in(value: Any) -> tuple[Shape, ...]:
    """Return the shape of every tensor in a value, in order."""
    return tuple(tuple(tensor.shape) for tensor in tensors_in(value))


def without_tensors(value: Any) -> Any:
    """Return an operator's argument with tensors replaced by their shapes."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(without_tensors(part) for part in value) if isinstance(value, (tuple, list)) else value
