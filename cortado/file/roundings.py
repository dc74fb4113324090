"""Roundings: how the file keeps what rounds a network's activations - which layers, which side, and a few numbers each.

Modules go by their place in the original network's order, as in edits; all steps stand in one stream, and so do all zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import cortado.parts.activations
from cortado.errors import BadFile, BadNetwork, BadValue
from cortado.file.floats import decode_floats, encode_floats
from cortado.file.keys import key_of, kind_at, own_kinds
from cortado.file.plane import Coded, decode_plane, encode_plane
from cortado.file.wire import Cursor, varint
from cortado.parts.activations.quantizer import SIDES, ActivationQuantizer, put_quantizer, sites

MOST = 2**24
DAMAGED = "The file is damaged."


@dataclass(frozen=True)
class Roundings:
    """Sites (module, side) in order, for each which rounding serves it, and the roundings."""

    places: tuple[tuple[int, int], ...] = ()
    serves: tuple[int, ...] = ()
    quantizers: tuple[ActivationQuantizer, ...] = ()
    size_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.places)

    def text(self) -> str:
        """For people: "31 activations rounded: 31 affine"."""
        kinds = [type(quantizer).__name__.lower() for quantizer in self.quantizers]
        return f"{len(self.places)} activations rounded: " + ", ".join(
            f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds)
        )


def roundings_of(network: nn.Module, original: nn.Module) -> Roundings:
    """What rounds the activations of a network made from `original`.  Raises BadNetwork for layers that `original` has not."""
    order = {path: number for number, (path, _) in enumerate(original.named_modules())}
    found = sites(network)
    strange = next((path for path, _ in found if path not in order), None)
    if strange is not None:
        raise BadNetwork(
            f"file: an activation of {strange} is rounded, which the original network lacks. Quantize its own layers."
        )
    by_place = sorted(((order[path], SIDES.index(side)), quantizer) for (path, side), quantizer in found.items())
    quantizers = list(dict.fromkeys(quantizer for _, quantizer in by_place))
    return Roundings(
        tuple(place for place, _ in by_place),
        tuple(quantizers.index(quantizer) for _, quantizer in by_place),
        tuple(quantizers),
    )


def write_roundings(roundings: Roundings) -> bytes:
    """Sites, which rounding serves each, the kinds of roundings, which kind each is, and their numbers kind by kind."""
    flat = [number * len(SIDES) + side for number, side in roundings.places]
    kinds = list(dict.fromkeys(quantizer_kind(quantizer) for quantizer in roundings.quantizers))
    body = varint(len(flat)) + varint(len(roundings.quantizers)) + varint(len(kinds))
    body += numbers(np.diff(flat, prepend=0)) + numbers(np.array(roundings.serves))
    for kind, facts in kinds:
        body += key_of(kind) + b"".join(varint(fact) for fact in facts)
    body += numbers(np.array([kinds.index(quantizer_kind(quantizer)) for quantizer in roundings.quantizers]))
    for chosen in kinds:
        parts = [quantizer.parts() for quantizer in roundings.quantizers if quantizer_kind(quantizer) == chosen]
        for name in chosen[0].floats:
            coded = encode_floats(np.array([float(part[name]) for part in parts], dtype=np.float32))
            body += varint(len(coded)) + coded
        for name in chosen[0].integers:
            body += numbers(np.array([int(part[name]) for part in parts]))
    return body


def quantizer_kind(quantizer: ActivationQuantizer) -> tuple[type[ActivationQuantizer], tuple[int, ...]]:
    """The class of a rounding, with its facts."""
    spec = quantizer.spec()
    return type(quantizer), tuple(spec[fact] for fact in quantizer.facts)


def numbers(values: np.ndarray) -> bytes:
    """Whole numbers as a stream with its codec and length."""
    coded = encode_plane(values.astype(np.int32))
    return varint(len(coded.body) * 8 + coded.codec) + coded.body


def read_numbers(cursor: Cursor, count: int) -> list[int]:
    """The inverse of `numbers`."""
    head = cursor.number()
    return [int(value) for value in decode_plane(Coded(head % 8, cursor.take(head // 8)), (count,))]


def read_roundings(cursor: Cursor, known: Sequence[type[ActivationQuantizer]] = ()) -> Roundings:
    """The roundings at the cursor; `known` are a user's own classes.  Raises BadFile."""
    start = cursor.at
    count, distinct, kind_count = (cursor.number(MOST) for _ in range(3))
    if not 1 <= kind_count <= distinct <= count:
        raise BadFile(
            f"file: it announces {distinct} roundings of {kind_count} kinds for {count} activations. {DAMAGED}"
        )
    flat, serves = np.cumsum(read_numbers(cursor, count)), read_numbers(cursor, count)
    kinds = [read_kind(cursor, known) for _ in range(kind_count)]
    chosen = read_numbers(cursor, distinct)
    rising = flat[0] >= 0 and bool((np.diff(flat) > 0).all())
    if not rising or sorted(set(serves)) != list(range(distinct)) or set(chosen) != set(range(kind_count)):
        raise BadFile(f"file: what it says of rounded activations contradicts itself. {DAMAGED}")
    made: dict[int, ActivationQuantizer] = {}
    for number, (kind, spec) in enumerate(kinds):
        mine = [place for place, one in enumerate(chosen) if one == number]
        made |= dict(zip(mine, read_quantizers(cursor, kind, spec, len(mine)), strict=True))
    places = tuple((int(place) // len(SIDES), int(place) % len(SIDES)) for place in flat)
    return Roundings(places, tuple(serves), tuple(made[number] for number in range(distinct)), cursor.at - start)


def read_kind(
    cursor: Cursor, known: Sequence[type[ActivationQuantizer]]
) -> tuple[type[ActivationQuantizer], dict[str, int]]:
    """A class of roundings with its facts."""
    kind = kind_at(
        cursor,
        own_kinds(cortado.parts.activations, ActivationQuantizer),
        known,
        "rounds activations in a way",
        "MySignal",
    )
    return kind, {fact: cursor.number(MOST) for fact in kind.facts}


def read_quantizers(
    cursor: Cursor, kind: type[ActivationQuantizer], spec: dict[str, int], count: int
) -> list[ActivationQuantizer]:
    """`count` roundings of one kind."""
    columns: dict[str, list[Tensor]] = {}
    for name in kind.floats:
        column = decode_floats(cursor.take(cursor.number()), np.dtype(np.float32), count)
        columns[name] = [torch.tensor([value]) for value in column.tolist()]
    for name in kind.integers:
        columns[name] = [torch.tensor([value]) for value in read_numbers(cursor, count)]
    try:
        return [kind.from_parts(spec, {name: column[row] for name, column in columns.items()}) for row in range(count)]
    except BadValue as error:
        raise BadFile(f"file: {error} {DAMAGED}") from error


def put_roundings(network: nn.Module, original_paths: Sequence[str], roundings: Roundings) -> None:
    """Round activations of a network made from another whose modules have these paths.  Raises BadFile."""
    modules = dict(network.named_modules())
    for (number, side), which in zip(roundings.places, roundings.serves, strict=True):
        layer = modules.get(original_paths[number]) if number < len(original_paths) else None
        if layer is None:
            raise BadFile(f"file: it rounds an activation of module {number}, which is not there. {DAMAGED}")
        try:
            put_quantizer(layer, SIDES[side], roundings.quantizers[which])
        except BadNetwork as error:
            raise BadFile(f"file: {error} {DAMAGED}") from error
