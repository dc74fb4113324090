"""Trace: run a network once and record every layer call, every operator and every value, without activations."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cortado.errors import BadNetwork, BadValue
from cortado.network.graph.graph import Graph
from cortado.network.graph.operators.table import operator_facts
from cortado.network.graph.record import Begun, Call, Ended, Event, Operator, Shape
from cortado.network.graph.values import Values, later_version, memory_of, written_by
from cortado.parts.activations.quantizer import ActivationQuantizer
from cortado.parts.forms.form import Form
from cortado.parts.part import inside_parts
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode, keeping_buffers
from cortado.running.trees import tensors_in, to_device

OWN_CODE = ("/torch/", "/cortado/network/", "/cortado/running/", "/cortado/layers/", "/cortado/nets/from_onnx/")
"""Parts of the paths of files that are not the user's."""
CALLER = "/cortado/running/call.py"
"""The file that calls the network."""


def trace(network: nn.Module, example: Any, batch: int | None = None) -> Graph:
    """Run `network` on `example` (a tensor, a tuple, or a dict of inputs) and return what ran.

    The network runs in eval mode without gradients; its modes, buffers, hooks and the random state are restored.
    Attention runs unfused, so that its products are recorded. Only shapes are kept, and the meta device works. An
    operator belongs to the innermost running module; operators that compute a form's dense weight are marked
    `decoding`, and those of activation quantizers `rounding`. `batch` is the number of samples, by default the first axis
    of the first tensor. Raises BadNetwork when the network fails on the example, BadValue when the example has no tensor.
    """
    example = to_device(example, device_of(network))
    tensors = tensors_in(example)
    if not tensors or (batch is None and tensors[0].dim() == 0):
        raise BadValue("trace: the example has no tensor with a batch axis. Pass a tensor, a tuple or a dict of them.")
    recorder = Recorder(network)
    given = frozenset(map(recorder.values.number, tensors))
    with undisturbed(network), recorder.listening():
        output = call_with(network, example)
    return recorder.graph(tensors[0].shape[0] if batch is None else batch, given, output)


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


class OpenCall:
    """A call that is being recorded."""

    def __init__(self, module: nn.Module, around: int, tensors: list[Tensor], first: Any, reads: list[int]) -> None:
        self.module, self.around, self.reads = module, around, tuple(reads)
        self.inputs: tuple[Shape, ...] = tuple(tuple(tensor.shape) for tensor in tensors)
        self.first = (first.shape, first.dtype) if isinstance(first, Tensor) else None
        self.outputs: tuple[Shape, ...] = ()
        self.makes: tuple[int, ...] = ()
        self.tensor = self.alike = False

    def close(self, output: Any, tensors: list[Tensor], makes: list[int]) -> None:
        """Record what the call returned."""
        self.outputs, self.makes = tuple(tuple(tensor.shape) for tensor in tensors), tuple(makes)
        self.tensor = isinstance(output, Tensor)
        self.alike = isinstance(output, Tensor) and self.first == (output.shape, output.dtype)


class Recorder(TorchDispatchMode):
    """Records a network: hooks track the stack of running modules, the dispatch mode sees the operators."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.made: list[list[int]] = []
        """The values that each operator made; a view may be found changed later."""
        self.opened: list[OpenCall] = []
        self.stack: list[int] = []
        self.decoding = self.rounding = 0
        self.values = Values()
        self.forms = [module for module in network.modules() if isinstance(module, Form)]
        self.quantizers = [module for module in network.modules() if isinstance(module, ActivationQuantizer)]
        self.inside_parts = inside_parts(network)
        self.layers = [module for module in network.modules() if id(module) not in self.inside_parts]
        self.paths: dict[int, list[str]] = {}
        for path, module in network.named_modules(remove_duplicate=False):
            self.paths.setdefault(id(module), []).append(path)
        self.owners: dict[int, set[int]] = {}
        rounding = {id(module) for quantizer in self.quantizers for module in quantizer.modules()}
        for layer in (module for module in network.modules() if id(module) not in rounding):
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                self.owners.setdefault(self.values.number(tensor), set()).add(id(layer))
        self.values.constants.update(self.owners)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record calls and operators of the network inside the block; all hooks are removed afterwards."""
        handles = []
        try:
            for layer in self.layers:
                handles.append(layer.register_forward_pre_hook(self.enter, with_kwargs=True))
                handles.append(layer.register_forward_hook(self.leave, always_call=True))
            for quantizer in self.quantizers:
                handles.append(quantizer.register_forward_pre_hook(self.begin_rounding))
                handles.append(quantizer.register_forward_hook(self.end_rounding, always_call=True))
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
        tensors = tensors_in((positional, named))
        around, first = self.stack[-1] if self.stack else -1, positional[0] if positional else None
        self.stack.append(len(self.opened))
        self.events.append(Begun(len(self.opened)))
        self.opened.append(OpenCall(module, around, tensors, first, [self.values.number(tensor) for tensor in tensors]))

    def leave(self, module: nn.Module, positional: tuple[Any, ...], output: Any) -> None:
        """Leave a module that has run or failed: a network may catch the error and continue."""
        tensors = tensors_in(output)
        self.events.append(Ended(self.stack[-1]))
        self.opened[self.stack.pop()].close(output, tensors, [self.values.number(tensor) for tensor in tensors])

    def begin_rounding(self, quantizer: nn.Module, given: tuple[Any, ...]) -> None:
        self.rounding += 1

    def end_rounding(self, quantizer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        self.rounding -= 1
        if isinstance(output, Tensor) and given and isinstance(given[0], Tensor):
            self.values.alias(output, given[0])

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        # Inside a quantizer nothing is numbered: its output counts as its input.
        numbered = not self.rounding
        given = tensors_in((args, named))
        reads = [self.values.number(tensor) for tensor in given] if numbered else []
        output = func(*args, **named)
        activations = sum(value not in self.values.constants for value in reads)
        written = {id(tensor) for tensor in written_by(func, args, named)}
        tensors = tensors_in(output)
        makes = (
            [self.values.renew(one, later_version(func, one, given, written)) for one in tensors] if numbered else []
        )
        for tensor in tensors if numbered else ():
            if id(tensor) in written:
                self.values.writers[memory_of(tensor)] = makes
        if reads and not activations:
            self.values.constants.update(makes)
        facts = operator_facts(func.overloadpacket.__name__)
        self.made.append(makes)
        self.events.append(
            Operator(
                name=str(func),
                arguments=tuple(without_tensors(value) for value in args),
                outputs=tuple(tuple(tensor.shape) for tensor in tensors),
                pointwise=torch.Tag.pointwise in func.tags,
                view=func.is_view or torch.Tag.inplace_view in func.tags,
                reduction=torch.Tag.reduction in func.tags,
                decoding=self.decoding > 0,
                rounding=self.rounding > 0,
                call=self.stack[-1] if self.stack else -1,
                line=calling_line(),
                reads=tuple(reads),
                role=facts.role_in(args, named, activations),
                below=facts.below(args, named),
                floor=facts.floor,
                homogeneous=facts.homogeneous,
            )
        )
        return output

    def graph(self, batch: int, given: frozenset[int], output: Any) -> Graph:
        """Return what was recorded."""
        made = iter(self.made)
        events = [replace(one, makes=tuple(next(made))) if isinstance(one, Operator) else one for one in self.events]
        inside: dict[int, list[Operator]] = {}
        for event in events:
            if isinstance(event, Operator):
                inside.setdefault(event.call, []).append(event)
        return Graph(
            events=tuple(events),
            every_call=tuple(
                self.closed(index, opened, tuple(inside.get(index, ()))) for index, opened in enumerate(self.opened)
            ),
            batch=batch,
            given=given,
            results=frozenset(self.values.number(tensor) for tensor in tensors_in(output)),
            constants=frozenset(self.values.constants),
            owners={value: frozenset(owners) for value, owners in self.owners.items()},
        )

    def closed(self, index: int, opened: OpenCall, operators: tuple[Operator, ...]) -> Call:
        """Return the record of a call."""
        return Call(
            index, tuple(self.paths[id(opened.module)]), opened.module, opened.inputs, opened.outputs, operators,
            opened.around, opened.reads, opened.makes, opened.tensor, opened.alike,
            listed=bool(operators) or self.is_layer(opened.module),
        )  # fmt: skip

    def is_layer(self, module: nn.Module) -> bool:
        """Return whether a module owns a weight or has no inner modules, parts aside."""
        owns = next(module.parameters(recurse=False), None) is not None
        return owns or all(id(child) in self.inside_parts for child in module.children())


def calling_line() -> str:
    """Return the innermost running line of the user's code: "net.py:12"; "" without one."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.endswith(CALLER):
        path = frame.f_code.co_filename
        if not any(part in path for part in OWN_CODE):
            return f"{path.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def device_of(network: nn.Module) -> torch.device | None:
    """Return the device of the network's first parameter or buffer; None if it has neither."""
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return None


def without_tensors(value: Any) -> Any:
    """Return an operator's argument with tensors replaced by their shapes."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(without_tensors(part) for part in value) if isinstance(value, (tuple, list)) else value
