"""Placement: which values to quantize so that a network runs in integers, and at which layers.

A runtime computes a product in integers when its input and its output, after a fused norm and clipping activation,
are quantized; a sum, concatenation or average when all its inputs and outputs are. Moves need no quantizers.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import product

from torch import nn

from cortado.layers.roles import CLIP, FLOAT, JOIN, MATMUL, MOVE, NORM
from cortado.network.graph.flow import Flow, FlowStep
from cortado.parts.activations.quantizer import INPUT, OUTPUT
from cortado.parts.part import is_container

Place = tuple[str, str]


@dataclass(frozen=True)
class QuantizerSite:
    """One grid shared by some places, and the places whose values determine its range."""

    places: tuple[Place, ...]
    measured: tuple[Place, ...]
    below: float = 1.0
    """The factor on values below zero in the next activation: 0 where the grid may clip them, 1 without one."""
    readers: tuple[str, ...] = ()
    """Paths of the products that read it, directly or moved; empty if only sums, averages and the like do."""
    floor: float = -math.inf
    """Values below it count as this value in the next activation."""

    @property
    def above_zero(self) -> bool:
        """Return whether values below zero are removed."""
        return self.below == 0


@dataclass(frozen=True)
class QuantizationPlan:
    """What to quantize, and the steps that stay in floats because no layer can quantize their values."""

    quantizer_sites: tuple[QuantizerSite, ...]
    unquantized: tuple[FlowStep, ...]


class Planner:
    """Marks values step by step in order of appearance."""

    def __init__(self, network: nn.Module, flow: Flow, matmul_layers: Collection[str] | None) -> None:
        """`matmul_layers`: paths of the layers that should run in integers; None for all."""
        self.flow, self.matmul_layers = flow, matmul_layers
        self.readers = flow.readers()
        self.maker = {value: step for step in flow.steps for value in step.outputs}
        self.containers = {path for path, module in network.named_modules() if is_container(module)}
        self.placed: dict[int, tuple[Place, ...]] = {}
        self.on_grid: set[int] = set()
        """Values on a grid: quantized, or moved from a quantized value."""
        self.unquantized: list[FlowStep] = []
        self.tied: list[tuple[int, int]] = []
        """Values that must share a grid."""
        self.source: dict[int, int] = {}
        """For moved or joined values: a quantized value on the same grid."""
        self.below: dict[int, float] = {}
        """Values that only an activation reads, and its factor on values below zero."""
        self.floors: dict[int, float] = {}
        """Values that only one step reads, and its floor."""
        self.read: list[tuple[int, str]] = []
        """Values that a product reads, with the product."""
        self.joined: set[int] = set()
        """Outputs of sums, concatenations and the like that run in integers."""
        self.integer_outputs: set[int] = set()
        """Outputs of integer steps, including the fused ones."""

    def run(self) -> None:
        """Visit every step once."""
        for step in self.flow.steps:
            if step.kind == MATMUL and (self.matmul_layers is None or step.path in self.matmul_layers):
                self.product(step)
            elif step.kind == JOIN and step.name == "cat":
                self.side_by_side(step)
            elif step.kind == JOIN:
                self.join(step)
            elif step.kind in (MOVE, CLIP) and step.inputs and step.inputs[0] in self.on_grid:
                self.on_grid.update(step.outputs)
                self.source |= {made: self.source.get(step.inputs[0], step.inputs[0]) for made in step.outputs}
        for value in list(self.placed):
            self.quantize_for_products_only(value)

    def quantize_for_products_only(self, value: int) -> None:
        """Quantize only for the products a sum that floats read too and that no layer follows."""
        fixed = self.integer_outputs.union(*self.tied)
        readers = self.readers.get(value, [])
        matmul_layers = [step for step in readers if step.kind == MATMUL]
        floats = [step for step in readers if step.kind in (NORM, FLOAT, JOIN) and not self.joined & {*step.outputs}]
        into = tuple(dict.fromkeys((step.path, INPUT) for step in matmul_layers))
        passed = self.flow.places.get(value, [])
        alone = all(place in passed and self.flow.calls.get(place[0]) == 1 for place in into)
        if (
            matmul_layers
            and floats
            and len(matmul_layers) + len(floats) == len(readers)
            and alone
            and value not in fixed
        ):
            self.placed[value] = into

    def product(self, step: FlowStep) -> None:
        """Mark the input of a product, and its output after the fused steps."""
        if not step.inputs or not self.mark(step.inputs[0], step):
            self.unquantized.append(step)
            return
        self.read.append((step.inputs[0], step.path))
        # Leave logits in floats: runtimes have integer products with float outputs.
        if self.ends_of(step)[-1] in self.flow.results and "onv" not in step.name:
            return
        if self.mark_end(step) is None:
            self.unquantized.append(step)

    def join(self, step: FlowStep) -> None:
        """Mark all inputs and the output if some input is on a grid already; if products are chosen, only if all are."""
        if not (any if self.matmul_layers is None else all)(value in self.on_grid for value in step.inputs):
            return
        if not all(self.mark(value) for value in dict.fromkeys(step.inputs)):
            self.unquantized.append(step)
            return
        self.joined.update(step.outputs)
        if self.ends_of(step)[-1] in self.flow.results:
            return
        if self.mark_end(step) is None:
            self.joined.difference_update(step.outputs)
            self.unquantized.append(step)

    def side_by_side(self, step: FlowStep) -> None:
        """Mark values to be concatenated, which must share a grid; not worthwhile if floats are needed next."""
        after = [reader for value in step.outputs for reader in self.readers.get(value, [])]
        enough = (any if self.matmul_layers is None else all)(value in self.on_grid for value in step.inputs)
        if not enough or all(reader.kind in (NORM, FLOAT) for reader in after):
            return
        if not all(self.mark(value) for value in dict.fromkeys(step.inputs)):
            self.unquantized.append(step)
            return
        sources = [self.source.get(value, value) for value in step.inputs]
        self.tied += [(value, sources[0]) for value in sources]
        self.on_grid.update(step.outputs)
        self.joined.update(step.outputs)
        self.source[step.outputs[0]] = sources[0]
        if len(after) == 1 and after[0].above_zero and all(len(self.readers[value]) == 1 for value in step.inputs):
            self.below |= dict.fromkeys(sources, 0.0)

    def mark_end(self, step: FlowStep) -> int | None:
        """Quantize a step's output, as late as there is a place for it; return the quantized value."""
        ends = self.ends_of(step)
        for number in range(len(ends) - 1, -1, -1):
            if self.mark(ends[number]):
                after = self.readers.get(ends[number], [])
                if len(after) == 1 and ends[number] not in self.flow.results:
                    self.below[ends[number]], self.floors[ends[number]] = after[0].below, after[0].floor
                self.on_grid.update(ends[number:])
                self.integer_outputs.update(ends)
                return ends[number]
        # Quantizing a moved value equals moving a quantized one.
        moved = self.moved_from(ends[-1])
        if any(self.mark(value) for value in moved):
            self.on_grid.update((ends[-1], *moved))
            self.integer_outputs.update((*ends, *moved))
            return ends[-1]
        return None

    def before_moves(self, value: int) -> int:
        """Return the value from which this one was moved."""
        while value in self.maker and self.maker[value].kind == MOVE and self.maker[value].inputs:
            value = self.maker[value].inputs[0]
        return value

    def moved_from(self, value: int) -> list[int]:
        """Return the values moved from this one, step by step."""
        found: list[int] = []
        while len(readers := self.readers.get(value, [])) == 1 and readers[0].kind == MOVE:
            value = readers[0].outputs[0]
            found.append(value)
        return found

    def ends_of(self, step: FlowStep) -> list[int]:
        """Return the output of a step, then those after the norm (of a product) and the activation fused into it."""
        ends, wanted = [step.outputs[0]], [NORM, CLIP] if step.kind == MATMUL else [CLIP]
        while wanted and ends[-1] not in self.flow.results:
            readers = self.readers.get(ends[-1], [])
            if len(readers) != 1 or readers[0].kind not in wanted:
                break
            wanted = wanted[wanted.index(readers[0].kind) + 1 :]
            ends.append(readers[0].outputs[0])
        return ends

    def mark(self, value: int, reader: FlowStep | None = None) -> bool:
        """Mark a value to be quantized, directly or before it was moved; return whether that is possible."""
        if value in self.on_grid:
            return True
        source = self.before_moves(value)
        for shared, tried in product((False, True), dict.fromkeys((source, value))):
            places = self.places_of(tried, reader if tried == value else None, shared)
            if places:
                self.placed[tried] = places
                self.on_grid.add(tried)
                self.spread()
                self.source[value] = tried
                return True
        return False

    def spread(self) -> None:
        """Put values moved from a marked value on its grid as well."""
        for step in self.flow.steps:
            if step.kind == MOVE and step.inputs and step.inputs[0] in self.on_grid:
                self.on_grid.update(step.outputs)
                for made in step.outputs:
                    self.source.setdefault(made, self.source.get(step.inputs[0], step.inputs[0]))

    def places_of(self, value: int, reader: FlowStep | None, shared: bool) -> tuple[Place, ...]:
        """Return where to quantize a value for all its readers: at a layer's output, else at the readers' inputs.

        With `shared` also at the output of a layer that runs several times, with one grid for all its calls.
        """
        passed = [place for place in self.flow.places.get(value, []) if place[0] not in self.containers]
        once = [place for place in passed if self.flow.calls.get(place[0]) == 1]
        out = [place for place in once if place[1] == OUTPUT]
        if out:
            return (out[0],)
        readers = {step.path for step in self.readers.get(value, []) if step.kind in (MATMUL, JOIN, MOVE)}
        into = [place for place in once if place[1] == INPUT and place[0] in readers]
        if reader is not None and not into:
            into = [place for place in once if place[1] == INPUT and is_within(reader.path, place[0])][-1:]
        if into and (reader is not None or {path for path, _ in into} == readers):
            return tuple(
                one for one in dict.fromkeys(into) if not any(is_within(one[0], o[0]) for o in into if o != one)
            )
        return tuple(dict.fromkeys(place for place in passed if place[1] == OUTPUT and shared))[:1]


def is_within(path: str, outer: str) -> bool:
    """Return whether a path is `outer` or inside it."""
    return not outer or path == outer or path.startswith(f"{outer}.")


def quantizer_sites(network: nn.Module, flow: Flow, matmul_layers: Collection[str] | None = None) -> QuantizationPlan:
    """Return what to quantize so that the products at `matmul_layers` (None: all) and steps between run in integers.

    Concatenated values, and places that share a layer, share a grid.
    """
    planner = Planner(network, flow, matmul_layers)
    planner.run()
    groups: dict[int, int] = {value: value for value in planner.placed}

    def root(value: int) -> int:
        while groups[value] != value:
            value = groups[value]
        return value

    owner: dict[Place, int] = {}
    for value, places in planner.placed.items():
        for place in places:
            groups[root(value)] = root(owner.setdefault(place, value))
    # A value quantized both before and after a move needs one grid too.
    moved = [(value, planner.before_moves(value)) for value in planner.placed]
    for one, other in planner.tied + moved:
        if one in groups and other in groups:
            groups[root(one)] = root(other)
    members: dict[int, list[int]] = {}
    for value in planner.placed:
        members.setdefault(root(value), []).append(value)
    sources = [(planner.source.get(value, value), path) for value, path in planner.read]
    found = []
    for values in members.values():
        readers = tuple(dict.fromkeys(path for value, path in sources if value in values))
        every = tuple(dict.fromkeys(place for value in values for place in planner.placed[value]))
        measured = tuple(dict.fromkeys(planner.placed[value][0] for value in values))
        below = max(planner.below.get(value, 1.0) for value in values)
        floor = min(planner.floors.get(value, -math.inf) for value in values)
        found.append(QuantizerSite(every, measured, below, readers, floor))
    return QuantizationPlan(tuple(found), tuple(planner.unquantized))
