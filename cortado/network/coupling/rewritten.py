"""Rewritten: the traced network after a cut, with every number in it recomputed from the axes.

It does not use the module's own code, so it is the reference for a cut network.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from cortado.network.coupling.answers import output_tensors
from cortado.network.coupling.capture import quiet_and_unfused
from cortado.network.coupling.constants import changed
from cortado.network.coupling.groups import Groups
from cortado.network.graph.axes.variables import Gone


class Rewritten(fx.Interpreter):
    """Runs a captured graph with other tensors and other numbers."""

    def __init__(self, groups: Groups, gone: Gone, tensor_of: Callable[[fx.Node], Tensor]) -> None:
        """`tensor_of` returns the cut tensor of each placeholder of a parameter or buffer."""
        program = groups.walked.captured.program
        super().__init__(program.graph_module, garbage_collect_values=True)
        self.groups, self.tensor_of = groups, tensor_of
        self.new: dict[fx.Node, list[tuple[str, int, int]]] = {}
        for constant, value in changed(groups.constants, gone):
            self.new.setdefault(constant.node, []).append((constant.argument, constant.place, value))
        self.given: dict[str, Any] = {}

    def answer(self) -> list[Tensor]:
        """Return the outputs on the captured example, flat."""
        program = self.groups.walked.captured.program
        flat = torch.utils._pytree.tree_leaves(program.example_inputs)
        names = program.graph_signature.user_inputs
        self.given = dict(zip(names, flat, strict=True))
        with quiet_and_unfused():
            found = self.run(*[None for node in program.graph.nodes if node.op == "placeholder"])
        return output_tensors(found)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        node = self.current
        captured = self.groups.walked.captured
        if node in captured.tensors:
            return self.tensor_of(node)
        if node.name in self.given:
            return self.given[node.name]
        constants = captured.program.graph_signature.inputs_to_lifted_tensor_constants
        buffers = captured.program.graph_signature.inputs_to_buffers
        return captured.program.constants.get(constants.get(node.name) or buffers.get(node.name))

    def run_node(self, n: fx.Node) -> Any:
        self.current = n
        return super().run_node(n)

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if n not in self.new:
            return args, kwargs
        return with_numbers(n.target, args, kwargs, self.new[n])


def with_numbers(operator: Any, args: Any, kwargs: Any, new: list[tuple[str, int, int]]) -> Any:
    """Return an operator's arguments with new numbers: (argument, position or -1 for all of it, value)."""
    changed_args, kwargs = list(args), dict(kwargs)
    order = [argument.name for argument in operator._schema.arguments]
    for argument, place, value in new:
        at = order.index(argument)
        old = kwargs[argument] if argument in kwargs else changed_args[at]
        made = value if place < 0 else [value if i == place else part for i, part in enumerate(old)]
        if argument in kwargs:
            kwargs[argument] = made
        else:
            changed_args[at] = made
    return tuple(changed_args), kwargs


def tensors_at(network: nn.Module, groups: Groups) -> Callable[[fx.Node], Tensor]:
    """Return a function that reads a network's tensors by graph placeholder, through their forms."""
    modules = dict(network.named_modules(remove_duplicate=False))

    def read(node: fx.Node) -> Tensor:
        path, _, name = groups.walked.captured.tensors[node][0].rpartition(".")
        return getattr(modules[path], name).detach()

    return read
