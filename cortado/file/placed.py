"""Placed parts: what stands in modules' places and what rounds activations - where, of which kind, and a few numbers each.

Modules go by their place in the network's order. The numbers of all parts of one kind stand together: all steps in one
stream, all zeros in another.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cortado.parts.activations
import cortado.parts.blocks
from cortado.errors import BadFile, BadNetwork, BadValue
from cortado.file.floats import decode_floats, encode_floats
from cortado.file.keys import key_of, kind_at, own_kinds
from cortado.file.plane import Coded, decode_plane, encode_plane
from cortado.file.wire import Cursor, varint
from cortado.parts.activations.quantizer import SIDES, ActivationQuantizer, put_quantizer, quantizer_at, sites
from cortado.parts.blocks.block import Block, blocks_in, numbered
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.forms.attach import original_class
from cortado.parts.part import FLOATS, INTEGERS, Part

MOST_PLACES = 2**17
"""More than any network has modules: a few bytes can announce a list of any length."""
MOST_FACT = 2**24
DAMAGED = "The file is damaged."
Facts = tuple[int, ...]


@dataclass(frozen=True)
class Slots:
    """What a section places: parts of `base`, whose own classes are in `room`, in one of `count` slots of a module.

    `several`: one slot may hold several parts, those inside first.
    """

    base: Any
    room: Any
    count: int
    several: bool
    does: str
    like: str


ACTIVATIONS = Slots(
    ActivationQuantizer, cortado.parts.activations, len(SIDES), False, "rounds activations in a way", "MyQuantizer"
)
BLOCKS = Slots(Block, cortado.parts.blocks, 1, True, "uses a block", "MyBlock")


@dataclass(frozen=True)
class Description:
    """One part: its class, its facts, and its numbers by name."""

    kind: type[Part]
    facts: Facts
    numbers: dict[str, Tensor]

    def made(self, **inside: nn.Module) -> Part:
        """Return the part, with what it keeps inside.  Raises BadFile when the numbers contradict each other."""
        spec = dict(zip(self.kind.facts, self.facts, strict=True))
        try:
            return self.kind.from_parts(torch.Size(), spec, self.numbers | inside)
        except BadValue as error:
            raise BadFile(f"file: {error} {DAMAGED}") from error
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise BadFile(f"file: {self.kind.__name__} cannot be made of {spec} ({error}). {DAMAGED}") from error


@dataclass(frozen=True)
class Placed:
    """Places (module, slot) in order, for each which part stands there, and the parts."""

    places: tuple[tuple[int, int], ...] = ()
    serves: tuple[int, ...] = ()
    parts: tuple[Description, ...] = ()
    size_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.places)

    def text(self, what: str) -> str:
        """For people: "31 activations rounded: 31 affine"."""
        kinds = [part.kind.__name__.lower() for part in self.parts]
        return f"{len(self.places)} {what}: " + ", ".join(
            f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)
        )


def parts_in_places(found: Iterable[tuple[tuple[int, int], Part]]) -> Placed:
    """Return parts in their places, in the order of their modules; a part may stand in several."""
    by_place = sorted(found, key=lambda one: one[0])
    parts = list(dict.fromkeys(part for _, part in by_place))
    return Placed(
        tuple(place for place, _ in by_place),
        tuple(parts.index(part) for _, part in by_place),
        tuple(described(part) for part in parts),
    )


def described(part: Part) -> Description:
    """Return what the file says of one part."""
    spec, arrays = part.spec(), part.parts()
    numbers = {name: arrays[name] for name, sort in part.arrays.items() if sort in (FLOATS, INTEGERS)}
    kind: Any = original_class(part)
    return Description(kind, tuple(spec[fact] for fact in part.facts), numbers)


def placed_quantizers(network: nn.Module, skeleton: nn.Module) -> Placed:
    """Return what rounds the activations of a network.  Raises BadNetwork for layers that its skeleton has not."""
    order = {path: number for number, (path, _) in enumerate(numbered(skeleton))}
    found = sites(network)
    for path, block in blocks_in(network):
        if block.kept is not None and any(quantizer_at(block, side) for side in SIDES):
            raise BadNetwork(
                f"file: an activation of the {type(block).__name__} at {path} is rounded, whose path is that of the module it "
                "keeps. Quantize what it keeps, or a child module of the block."
            )
    strange = next((path for path, _ in found if path not in order), None)
    if strange is not None:
        raise BadNetwork(
            f"file: an activation of {strange} is rounded, which the original network lacks. Quantize its own layers."
        )
    return parts_in_places(((order[path], SIDES.index(side)), part) for (path, side), part in found.items())


def placed_blocks(network: nn.Module, original: nn.Module) -> Placed:
    """Return the blocks of a network made from `original`.  Raises BadNetwork for one where `original` has no module."""
    order = {path: number for number, (path, _) in enumerate(numbered(original))}
    found = blocks_in(network) + removed_by_hand(network, original)
    strange = next((path for path, _ in found if path not in order), None)
    if strange is not None:
        raise BadNetwork(
            f"file: a block stands at {strange}, where the original network has no module. Wrap one of its own modules."
        )
    return parts_in_places(((order[path], 0), block) for path, block in found)


def removed_by_hand(network: nn.Module, original: nn.Module) -> list[tuple[str, Block]]:
    """Return bypasses for the modules in whose place a network has an nn.Identity."""
    before = dict(original.named_modules())
    return [
        (path, Bypass())
        for path, module in network.named_modules()
        if type(module) is nn.Identity and path in before and type(before[path]) is not nn.Identity
    ]


def write_placed(placed: Placed, slots: Slots) -> bytes:
    """Write places, which part serves each, the kinds of parts, which kind each is, and their numbers kind by kind."""
    flat = [number * slots.count + slot for number, slot in placed.places]
    kinds = list(dict.fromkeys((part.kind, part.facts) for part in placed.parts))
    body = varint(len(flat)) + varint(len(placed.parts)) + varint(len(kinds))
    body += numbers(np.diff(flat, prepend=0)) + numbers(np.array(placed.serves))
    for kind, facts in kinds:
        body += key_of(kind) + b"".join(varint(fact) for fact in facts)
    body += numbers(np.array([kinds.index((part.kind, part.facts)) for part in placed.parts]))
    for chosen in kinds:
        rows = [part.numbers for part in placed.parts if (part.kind, part.facts) == chosen]
        for name, sort in number_columns(chosen[0]):
            body += written(np.array([row[name].item() for row in rows]), sort)
    return body


def number_columns(kind: type[Part]) -> list[tuple[str, str]]:
    """Return the numbers that parts of a class have, floats first."""
    found = [(name, sort) for name, sort in kind.arrays.items() if sort in (FLOATS, INTEGERS)]
    return sorted(found, key=lambda one: one[1] != FLOATS)


def written(column: np.ndarray, sort: str) -> bytes:
    """Return a column of numbers as a stream."""
    if sort == INTEGERS:
        return numbers(column)
    coded = encode_floats(column.astype(np.float32))
    return varint(len(coded)) + coded


def numbers(values: np.ndarray) -> bytes:
    """Return whole numbers as a stream with its codec and length."""
    coded = encode_plane(values.astype(np.int32))
    return varint(len(coded.body) * 8 + coded.codec) + coded.body


def read_numbers(cursor: Cursor, count: int) -> list[int]:
    """Return the numbers that `numbers` wrote."""
    head = cursor.number()
    return [int(value) for value in decode_plane(Coded(head % 8, cursor.take(head // 8)), (count,))]


def read_placed(cursor: Cursor, slots: Slots, known: Sequence[type[Part]] = ()) -> Placed:
    """Read the parts at the cursor; `known` are a user's own classes.  Raises BadFile."""
    start = cursor.at
    count, distinct, kind_count = (cursor.number(MOST_PLACES) for _ in range(3))
    if not 1 <= kind_count <= distinct <= count:
        raise BadFile(f"file: it announces {distinct} parts of {kind_count} kinds in {count} places. {DAMAGED}")
    flat, serves = np.cumsum(read_numbers(cursor, count)), read_numbers(cursor, count)
    kinds = [read_kind(cursor, slots, known) for _ in range(kind_count)]
    chosen = read_numbers(cursor, distinct)
    rising = flat[0] >= 0 and bool((np.diff(flat) >= (0 if slots.several else 1)).all())
    if not rising or sorted(set(serves)) != list(range(distinct)) or set(chosen) != set(range(kind_count)):
        raise BadFile(f"file: what it says of the parts in modules contradicts itself. {DAMAGED}")
    made: dict[int, Description] = {}
    for number, (kind, facts) in enumerate(kinds):
        mine = [place for place, one in enumerate(chosen) if one == number]
        made |= dict(zip(mine, read_parts(cursor, kind, facts, len(mine)), strict=True))
    places = tuple((int(place) // slots.count, int(place) % slots.count) for place in flat)
    return Placed(places, tuple(serves), tuple(made[number] for number in range(distinct)), cursor.at - start)


def read_kind(cursor: Cursor, slots: Slots, known: Sequence[type[Part]]) -> tuple[type[Part], Facts]:
    """Read a class of parts with its facts."""
    users = [kind for kind in known if issubclass(kind, slots.base)]
    kind = kind_at(cursor, own_kinds(slots.room, slots.base), users, slots.does, slots.like)
    return kind, tuple(cursor.number(MOST_FACT) for _ in kind.facts)


def read_parts(cursor: Cursor, kind: type[Part], facts: Facts, count: int) -> list[Description]:
    """Read the numbers of `count` parts of one kind."""
    columns: dict[str, list[Tensor]] = {}
    for name, sort in number_columns(kind):
        if sort == FLOATS:
            values: list[Any] = decode_floats(cursor.take(cursor.number()), np.dtype(np.float32), count).tolist()
        else:
            values = read_numbers(cursor, count)
        columns[name] = [torch.tensor([value]) for value in values]
    return [Description(kind, facts, {name: column[row] for name, column in columns.items()}) for row in range(count)]


def put_quantizers(modules: Callable[[int], nn.Module | None], quantizers: Placed) -> None:
    """Round activations of the modules with these numbers.  Raises BadFile."""
    made = [part.made() for part in quantizers.parts]
    for (number, side), which in zip(quantizers.places, quantizers.serves, strict=True):
        layer, quantizer = modules(number), made[which]
        if layer is None or not isinstance(quantizer, ActivationQuantizer):
            raise BadFile(f"file: it rounds an activation of module {number}, which is not there. {DAMAGED}")
        try:
            put_quantizer(layer, SIDES[side], quantizer)
        except BadNetwork as error:
            raise BadFile(f"file: {error} {DAMAGED}") from error
