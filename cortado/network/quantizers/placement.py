"""Rounding: which values must be rounded so that a network runs in integers, and at which layers that can be done.

A runtime computes a product (convolution, linear layer) in integers when what it reads is rounded and so is what comes
out, behind the norm and the clipping activation that become part of it; a sum, a concatenation or an average when all
it reads and gives is. What only moves values needs nothing of its own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import product

from torch import nn

from cortado.network.graph.flow import CLIP, FLOAT, JOIN, MATMUL, MOVE, NORM, Flow, FlowStep
from cortado.parts.activations.quantizer import INPUT, OUTPUT

Place = tuple[str, str]


@dataclass(frozen=True)
class QuantizerSite:
    """One grid that serves some places, and those among them whose values say how far it has to reach."""

    places: tuple[Place, ...]
    measured: tuple[Place, ...]
    below: float = 1.0
    """The share of what is below zero that the activation lets pass that follows at once: 0 where it cuts it off, so that
    the grid may do it; 1 where none follows."""
    readers: tuple[str, ...] = ()
    """Paths of the products that read it, as it is or moved; none for what only sums, averages and the like read."""

    @property
    def above_zero(self) -> bool:
        """Whether what is below zero is cut off."""
        return self.below == 0


@dataclass(frozen=True)
class QuantizationPlan:
    """What to round, and the steps that stay in floats although they could be whole numbers: no layer stands there."""

    quantizer_sites: tuple[QuantizerSite, ...]
    unquantized: tuple[FlowStep, ...]


class Planner:
    """Marks values step by step in the order in which they come up."""

    def __init__(self, network: nn.Module, flow: Flow, matmul_layers: Collection[str] | None) -> None:
        """`matmul_layers`: paths of the layers that are to run in integers; None for all."""
        self.flow, self.matmul_layers = flow, matmul_layers
        self.readers = flow.readers()
        self.maker = {value: step for step in flow.steps for value in step.outputs}
        self.containers = {
            path
            for path, module in network.named_modules()
            if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
        }
        self.placed: dict[int, tuple[Place, ...]] = {}
        self.whole: set[int] = set()
        """Values that are on a grid: rounded, or moved from one that is."""
        self.unquantized: list[FlowStep] = []
        self.tied: list[tuple[int, int]] = []
        """Values that want one grid."""
        self.source: dict[int, int] = {}
        """For values that were moved, or made of others: one that is rounded, on the same grid."""
        self.below: dict[int, float] = {}
        """Values that an activation alone reads, and the share of what is below zero that it lets pass."""
        self.read: list[tuple[int, str]] = []
        """Values that a product reads, each with the product."""
        self.joined: set[int] = set()
        """What sums, concatenations and the like give that run in integers."""
        self.made_whole: set[int] = set()
        """What comes out of integer steps, with all that they take in."""

    def run(self) -> None:
        """Look at every step once."""
        for step in self.flow.steps:
            if step.kind == MATMUL and (self.matmul_layers is None or step.path in self.matmul_layers):
                self.product(step)
            elif step.kind == JOIN and step.name == "cat":
                self.side_by_side(step)
            elif step.kind == JOIN:
                self.join(step)
            elif step.kind in (MOVE, CLIP) and step.inputs and step.inputs[0] in self.whole:
                self.whole.update(step.outputs)
                self.source |= {made: self.source.get(step.inputs[0], step.inputs[0]) for made in step.outputs}
        for value in list(self.placed):
            self.let_floats_pass(value)

    def let_floats_pass(self, value: int) -> None:
        """What products read and floats as well, a sum that no layer stands behind, is rounded for the products alone."""
        fixed = self.made_whole.union(*self.tied)
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
        """What it reads, and what comes out of it and what it takes in."""
        if not step.inputs or not self.mark(step.inputs[0], step):
            self.unquantized.append(step)
            return
        self.read.append((step.inputs[0], step.path))
        # Logits stay as they are: a runtime has integer products that give floats.
        if self.ends_of(step)[-1] in self.flow.results and "onv" not in step.name:
            return
        if self.mark_end(step) is None:
            self.unquantized.append(step)

    def join(self, step: FlowStep) -> None:
        """All it reads and what it gives, if some of it is on a grid already; where products are chosen, if all of it is."""
        if not (any if self.matmul_layers is None else all)(value in self.whole for value in step.inputs):
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
        """Values on one grid can be put side by side as they are; not worth it where floats are wanted next."""
        after = [reader for value in step.outputs for reader in self.readers.get(value, [])]
        enough = (any if self.matmul_layers is None else all)(value in self.whole for value in step.inputs)
        if not enough or all(reader.kind in (NORM, FLOAT) for reader in after):
            return
        if not all(self.mark(value) for value in dict.fromkeys(step.inputs)):
            self.unquantized.append(step)
            return
        sources = [self.source.get(value, value) for value in step.inputs]
        self.tied += [(value, sources[0]) for value in sources]
        self.whole.update(step.outputs)
        self.joined.update(step.outputs)
        self.source[step.outputs[0]] = sources[0]
        if len(after) == 1 and after[0].above_zero and all(len(self.readers[value]) == 1 for value in step.inputs):
            self.below |= dict.fromkeys(sources, 0.0)

    def mark_end(self, step: FlowStep) -> int | None:
        """Round what comes out of a step, as late as there is a place for it; the value that is rounded."""
        ends = self.ends_of(step)
        for number in range(len(ends) - 1, -1, -1):
            if self.mark(ends[number]):
                after = self.readers.get(ends[number], [])
                if len(after) == 1 and ends[number] not in self.flow.results:
                    self.below[ends[number]] = after[0].below
                self.whole.update(ends[number:])
                self.made_whole.update(ends)
                return ends[number]
        # To round what was moved is to move what was rounded.
        moved = self.moved_from(ends[-1])
        if any(self.mark(value) for value in moved):
            self.whole.update((ends[-1], *moved))
            self.made_whole.update((*ends, *moved))
            return ends[-1]
        return None

    def before_moves(self, value: int) -> int:
        """The value that was only moved to become this one."""
        while value in self.maker and self.maker[value].kind == MOVE and self.maker[value].inputs:
            value = self.maker[value].inputs[0]
        return value

    def moved_from(self, value: int) -> list[int]:
        """What comes of a value that is only moved on, by one step after another."""
        found: list[int] = []
        while len(readers := self.readers.get(value, [])) == 1 and readers[0].kind == MOVE:
            value = readers[0].outputs[0]
            found.append(value)
        return found

    def ends_of(self, step: FlowStep) -> list[int]:
        """What comes out of a step, then that behind the norm (of a product) and the activation that it takes in."""
        ends, wanted = [step.outputs[0]], [NORM, CLIP] if step.kind == MATMUL else [CLIP]
        while wanted and ends[-1] not in self.flow.results:
            readers = self.readers.get(ends[-1], [])
            if len(readers) != 1 or readers[0].kind not in wanted:
                break
            wanted = wanted[wanted.index(readers[0].kind) + 1 :]
            ends.append(readers[0].outputs[0])
        return ends

    def mark(self, value: int, reader: FlowStep | None = None) -> bool:
        """Let a value be rounded, at once or before what only moved it; whether that can be done."""
        if value in self.whole:
            return True
        source = self.before_moves(value)
        for shared, tried in product((False, True), dict.fromkeys((source, value))):
            places = self.places_of(tried, reader if tried == value else None, shared)
            if places:
                self.placed[tried] = places
                self.whole.add(tried)
                self.spread()
                self.source[value] = tried
                return True
        return False

    def spread(self) -> None:
        """What was moved from a value before it was marked is on its grid as well."""
        for step in self.flow.steps:
            if step.kind == MOVE and step.inputs and step.inputs[0] in self.whole:
                self.whole.update(step.outputs)
                for made in step.outputs:
                    self.source.setdefault(made, self.source.get(step.inputs[0], step.inputs[0]))

    def places_of(self, value: int, reader: FlowStep | None, shared: bool) -> tuple[Place, ...]:
        """Where to round a value for all that read it: as it comes out of a layer, or else as it goes into them.

        With `shared` out of a layer that runs several times, which has one grid for all its runs then.
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
    """Whether a path is that of a module or of something in it."""
    return not outer or path == outer or path.startswith(f"{outer}.")


def quantizer_sites(network: nn.Module, flow: Flow, matmul_layers: Collection[str] | None = None) -> QuantizationPlan:
    """What to round so that the products at `matmul_layers` (None: all), and what lies between them, run in integers.

    Values that are put side by side, and places that share a layer, share a grid.
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
    # What is rounded before it is moved and after wants one grid as well.
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
        found.append(QuantizerSite(every, measured, max(planner.below.get(value, 1.0) for value in values), readers))
    return QuantizationPlan(tuple(found), tuple(planner.unquantized))


def inputs_on_grid(flow: Flow, rounded: Collection[Place]) -> set[tuple[str, int]]:
    """For a network with roundings at these places: which module reads which value rounded, as (path, value).

    A value is on a grid as it comes out of a rounded output, for a module with a rounded input and all in it, and after
    what only moves it.
    """
    whole = {value for value, places in flow.places.items() if any(p in rounded and p[1] == OUTPUT for p in places)}
    for step in flow.steps:
        moves = step.inputs and (step.kind in (MOVE, CLIP) or step.name == "cat")
        if moves and all(reads_rounded(flow, step.path, value, whole, rounded) for value in step.inputs):
            whole.update(step.outputs)
    return {
        (step.path, value)
        for step in flow.steps
        for value in step.inputs
        if reads_rounded(flow, step.path, value, whole, rounded)
    }


def reads_rounded(flow: Flow, path: str, value: int, whole: Collection[int], rounded: Collection[Place]) -> bool:
    """Whether what a module at `path` reads as this value is rounded."""
    into = [place for place in flow.places.get(value, []) if place[1] == INPUT and place in rounded]
    return value in whole or any(is_within(path, place[0]) for place in into)
