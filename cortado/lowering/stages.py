"""Stages: a network cut at its choices of rows into several, of which a sample runs those that it needs.

What only the chosen rows of a choice need is a part of its own, with choices of its own inside. The rest is cut after each
choice: before, inside, between, inside, after. The cut is made in the graph of one sample, so that a host that runs the
parts decides for each sample alone. Weights stand in the part that multiplies by them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import getitem

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from cortado.errors import BadNetwork
from cortado.layers.roles import MATMUL
from cortado.lowering.graph import float_graph, quiet_exporters
from cortado.lowering.integers import DEQUANTIZE, QUANTIZE, is_relu, settings_of
from cortado.lowering.rows import CHOSEN, MASK, OTHERWISE, is_row_choice, served_only_by
from cortado.network.graph.axes.step import operator_name
from cortado.network.graph.operators.table import operator_facts

MOST = 64
"""More parts than this are not written."""


@dataclass(frozen=True, eq=False)
class StagePart:
    """A graph that reads some values, by their names, and makes others, as a tuple."""

    network: fx.GraphModule
    reads: tuple[str, ...]
    makes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StageChoice:
    """Steps that run where any entry of the value `rows` is true: then `result` is `chosen`, else it is `otherwise`."""

    rows: str
    chosen: str
    otherwise: str
    result: str
    steps: "tuple[StagePart | StageChoice, ...]"


@dataclass(frozen=True, eq=False)
class Stages:
    """A network for one sample as steps; its inputs, each with an example, and its outputs, by name and in order."""

    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    steps: tuple[StagePart | StageChoice, ...]

    def parts(self) -> Iterator[StagePart]:
        """Yield all parts in order, those inside choices too."""
        return parts_in(self.steps)


def parts_in(steps: Iterable[StagePart | StageChoice]) -> Iterator[StagePart]:
    """Yield the parts of some steps in order, those inside choices too."""
    for step in steps:
        if isinstance(step, StagePart):
            yield step
        else:
            yield from parts_in(step.steps)


def cut_in_stages(program: torch.export.ExportedProgram, name: str) -> Stages:
    """Return an exported network with a fixed batch of one sample as stages; `name` is that of its class.

    Raises BadNetwork if no choice of rows skips a product, if one picks a value that no input changes, and if there would be
    more than 64 parts.
    """
    if any(writes(node) for node in program.graph.nodes):
        # A value that an operator in another part writes into would be another one there.
        with quiet_exporters():
            program = program.run_decompositions({})
    made = Cutter(float_graph(program), name)
    stages = made.stages([leaf for leaf in pytree.tree_leaves(program.example_inputs) if isinstance(leaf, Tensor)])
    count = sum(1 for _ in stages.parts())
    if count > MOST:
        raise BadNetwork(f"{made.where} {count} parts, and at most {MOST} are written. Choose fewer blocks.")
    return stages


def writes(node: fx.Node) -> bool:
    """Return whether an operator writes into a value that it reads."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


@dataclass(eq=False)
class Cutter:
    """One network on its way into parts."""

    network: fx.GraphModule
    name: str
    fixed: set[fx.Node] = field(default_factory=set)
    """Nodes that depend on no input: each part that reads one computes its own."""
    inside: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    """What runs for the chosen rows of a choice alone, where that is worth a part."""
    wanted: set[fx.Node] = field(default_factory=set)
    """Values that have to exist outside parts, whoever reads them: outputs and what choices pick from."""

    @property
    def where(self) -> str:
        return f"stages: {self.name} cannot be cut at its choices of rows:"

    def stages(self, examples: Sequence[Tensor]) -> Stages:
        """Return the steps, inputs and outputs; `examples` are those of the inputs."""
        nodes = list(self.network.graph.nodes)
        for node in nodes:
            if node.op != "placeholder" and all(one in self.fixed for one in node.all_input_nodes):
                self.fixed.add(node)
        found = [node for node in nodes if is_row_choice(node)]
        self.inside = {node: inside for node in found if (inside := self.worth_a_part(node))}
        if not self.inside:
            raise BadNetwork(
                f"{self.where} none of them skips a product. Let ChooseRows choose what a layer has computed."
            )
        (end,) = [node for node in nodes if node.op == "output"]
        outputs = [one for one in pytree.tree_leaves(end.args[0]) if isinstance(one, fx.Node)]
        self.wanted = {*outputs, *(one for choice in self.inside for one in choice.all_input_nodes)}
        if self.wanted & self.fixed:
            raise BadNetwork(f"{self.where} one picks a value that no input changes. Let it depend on the inputs.")
        steps = self.steps([node for node in nodes if node.op == "call_function" and node not in self.fixed])
        given = [node for node in nodes if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor)]
        inputs = {node.name: example for node, example in zip(given, examples, strict=True)}
        return Stages(inputs, tuple(node.name for node in outputs), steps)

    def worth_a_part(self, choice: fx.Node) -> list[fx.Node]:
        """Return what runs for the chosen rows alone; nothing if it has no product.

        What fuses with an operator before the cut stays with it, as do the entries of its tuples: a ReLU and the rounding
        of its values, so that the product before them is one of integers.
        """
        inside = [node for node in served_only_by(choice) if node not in self.fixed]
        own = set(inside)
        for node in inside:
            sources = [one for one in node.all_input_nodes if one not in self.fixed]
            entering = all(one not in own and one.op != "placeholder" for one in sources)
            if entering and (node.target in (getitem, QUANTIZE) or is_relu(node) or settings_of(node) is not None):
                own.remove(node)
        products = [node for node in own if operator_facts(operator_name(node)).role == MATMUL]
        return [node for node in inside if node in own] if products else []

    def steps(self, nodes: Sequence[fx.Node]) -> tuple[StagePart | StageChoice, ...]:
        """Return the steps of a region: its parts, each as early as its inputs allow, and its choices between them."""
        held = {one for node in nodes if node in self.inside for one in self.inside[node]}
        outer = [node for node in nodes if node in self.inside and node not in held]
        place = {node: number for number, node in enumerate(outer)}
        level: dict[fx.Node, int] = {}
        for node in nodes:
            if node not in held:
                level[node] = max((level.get(one, 0) for one in node.all_input_nodes), default=0)
                if node in place:
                    level[node] = place[node] + 1
        found: list[StagePart | StageChoice] = []
        for number, choice in enumerate([*outer, None]):
            own = [node for node in nodes if level.get(node) == number and node not in place]
            found += [self.part(own)] if own else []
            found += [self.choice(choice)] if choice is not None else []
        return tuple(found)

    def choice(self, choice: fx.Node) -> StageChoice:
        """Return a choice with its own steps; with several rows, the pick among them is the last of these."""
        mask, chosen, otherwise = (choice.args[place] for place in (MASK, CHOSEN, OTHERWISE))
        assert isinstance(mask, fx.Node) and isinstance(chosen, fx.Node) and isinstance(otherwise, fx.Node)
        inside = self.inside[choice]
        if mask.meta["val"].numel() == 1:
            return StageChoice(mask.name, chosen.name, otherwise.name, choice.name, self.steps(inside))
        picked = self.steps(inside), self.part([choice])
        return StageChoice(mask.name, choice.name, otherwise.name, choice.name, (*picked[0], picked[1]))

    def part(self, nodes: Sequence[fx.Node]) -> StagePart:
        """Return nodes as a graph that reads what others made, and makes what others read."""
        own = set(nodes)
        reads = dict.fromkeys(
            one for node in nodes for one in node.all_input_nodes if one not in own and one not in self.fixed
        )
        makes = [node for node in nodes if node in self.wanted or any(user not in own for user in node.users)]
        graph, known = fx.Graph(), dict[fx.Node, fx.Node]()
        for one in reads:
            known[one] = graph.placeholder(one.name)
            known[one].meta = {"val": one.meta["val"]}
        for one in reads:
            self.round_again(graph, one, own, known)
        for node in self.network.graph.nodes:
            if node in own or node in self.fixed and self.read_by(node, own):
                known[node] = graph.node_copy(node, known.__getitem__)
        graph.output(tuple(known[node] for node in makes))
        made = fx.GraphModule(self.network, graph)
        return StagePart(made.eval(), tuple(one.name for one in reads), tuple(node.name for node in makes))

    def round_again(self, graph: fx.Graph, value: fx.Node, own: set[fx.Node], known: dict[fx.Node, fx.Node]) -> None:
        """Round a value that enters from another part on its grid, which changes nothing, so that products see the grid."""
        settings = settings_of(value)
        if settings is not None and any(user in own for user in value.users):
            first = graph.call_function(QUANTIZE, (known[value], *settings))
            known[value] = graph.call_function(DEQUANTIZE, (first, *settings))

    def read_by(self, node: fx.Node, own: set[fx.Node]) -> bool:
        """Return whether a node that depends on no input is needed by some nodes, directly or not."""
        return any(user in own or user in self.fixed and self.read_by(user, own) for user in node.users)
