"""Artifact: the compressed network as one compact file - save and load, bit for bit.

    "CRTD" | version | fingerprint 8 | sections | blocks | edits | activation quantizers | schemas | one record an entry | CRC-32

Numbers are 7 bits a byte. Only what differs from the original network is described: a record says which schema holds the
entry, the sizes that changed, and the coded streams; blocks what stands in modules' places; edits what a cut changed
besides; activation quantizers what rounds values between layers. No names, no code, no pickle.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork, BadValue, WrongNetwork
from cortado.file.differences import edits_of
from cortado.file.edits import Edits, read_edits, resolve, write_edits
from cortado.file.entries import Entry, check_classes, check_original, entries_of, fingerprint, put_entry, stored_at
from cortado.file.former import ROUNDED, read_former
from cortado.file.layout import Layout, laid_out, without_values
from cortado.file.placed import (
    ACTIVATIONS,
    BLOCKS,
    Placed,
    blocks_of,
    put_quantizers,
    quantizers_of,
    read_placed,
    write_placed,
)
from cortado.file.schema import Schema, read_schema, schema_of, write_schema
from cortado.file.streams import Place, Stream, decode_form, encode_form
from cortado.file.tensors import decode_tensor, encode_tensor
from cortado.file.whole import read_bytes, write_whole
from cortado.file.wire import Cursor, varint
from cortado.layers.cut_numbers import note_cuts
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.part import PART, Part
from cortado.renamed import FILE, old_arguments
from cortado.running.brought import accept

MAGIC, VERSION = b"CRTD", 4
HAS_BLOCKS, HAS_EDITS, HAS_QUANTIZERS = 1, 2, 4
"""Which sections a file has, added up."""
FLOAT_STREAM = 7
"""Stands in the place of a codec's number for streams of floats."""
Original = nn.Module | Callable[[], nn.Module]


@dataclass(frozen=True)
class StoredEntry:
    """One entry as stored: its schema (None: a plain tensor), the sizes that changed (axis -> size), its streams."""

    schema: Schema | None
    sizes: dict[int, int]
    streams: tuple[Stream, ...]
    size_bytes: int


@dataclass(frozen=True)
class Contents:
    """What a file holds, before anything is decoded."""

    version: int
    fingerprint: bytes
    blocks: Placed
    edits: Edits
    quantizers: Placed
    schemas: tuple[Schema, ...]
    records: tuple[StoredEntry, ...]
    size_bytes: int

    def layout(self, network: nn.Module) -> Layout:
        """Put the blocks into a network, in place, and return its layout.  Raises BadFile."""
        return laid_out(network, self.blocks, former=self.version < VERSION)

    def stored(self, original: nn.Module) -> list[Entry]:
        """Return what the records hold, for the original network of the file.  Raises BadFile, WrongNetwork."""
        layout = self.layout(without_values(original) if self.blocks else original)
        resolve(self.edits, layout)
        return layout.stored(self.edits.loose)


def original_network(original: Original) -> nn.Module:
    """The original network itself, or what its maker makes."""
    made = original() if callable(original) and not isinstance(original, nn.Module) else original
    accept(made, "file")
    return made


def encode(network: nn.Module, original: Original, codec: str = "smallest") -> bytes:
    """The file of `network` as bytes.  Raises BadNetwork when it differs from `original` in ways a file cannot say."""
    base = original_network(original)
    accept(network, "file")
    check_original(base)
    mark, layout = fingerprint(base, entries_of(base)), layout_of(network, base)
    check_classes(network, layout.network)
    edits = edits_of(network, layout)
    entries = layout.stored(edits.loose)
    attached = [stored_at(network, entry) for entry in entries]
    forms = [
        value if isinstance(value, Form) else other_type(value, entry)
        for value, entry in zip(attached, entries, strict=True)
    ]
    wanted = [None if form is None else schema_of(form) for form in forms]
    schemas = list(dict.fromkeys(schema for schema in wanted if schema is not None))
    body = head_of(mark, blocks_of(network, base), edits, quantizers_of(network, layout.network)) + varint(len(schemas))
    for schema in schemas:
        body += write_schema(schema)
    coded = in_parallel(
        lambda value: encode_value(value, codec), [h if f is None else f for h, f in zip(attached, forms, strict=True)]
    )
    for entry, value, streams, chosen in zip(entries, attached, coded, wanted, strict=True):
        number = 0 if chosen is None else schemas.index(chosen) + 1
        body += record_head(number, entry.shape, value.shape, entry.name) + record_body(streams)
    return bytes(body + zlib.crc32(body).to_bytes(4, "little"))


def layout_of(network: nn.Module, base: nn.Module) -> Layout:
    """Return the layout of an original network with the blocks of a compressed one.  Raises BadNetwork."""
    blocks = blocks_of(network, base)
    try:
        layout = laid_out(without_values(base) if blocks else base, blocks)
        layout.stored(())
    except BadFile as error:
        raise BadNetwork(str(error).replace(" The file is damaged.", " Leave a layer that has tensors.")) from error
    return layout


def head_of(mark: bytes, blocks: Placed, edits: Edits, quantizers: Placed) -> bytearray:
    """The file down to its schemas."""
    edited = bool(edits or blocks)
    sections = HAS_BLOCKS * bool(blocks) + HAS_EDITS * edited + HAS_QUANTIZERS * bool(quantizers)
    head = bytearray(MAGIC + bytes([VERSION]) + mark + varint(sections))
    head += write_placed(blocks, BLOCKS) if blocks else b""
    head += write_edits(edits) if edited else b""
    return head + (write_placed(quantizers, ACTIVATIONS) if quantizers else b"")


def in_parallel(work: Callable[[Any], Any], pieces: Iterable[Any]) -> list[Any]:
    """`work` on every piece, on as many threads as torch uses; the coder's kernels leave Python free meanwhile."""
    if torch.get_num_threads() == 1:
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(work, pieces))


def encode_value(value: Form | Tensor, codec: str) -> list[Stream]:
    """The streams of one entry."""
    return encode_form(value, codec) if isinstance(value, Form) else [encode_tensor(value, codec)]


def record_body(streams: list[Stream]) -> bytes:
    """The streams of one entry, each behind its codec and length."""
    body = bytearray()
    for stream in streams:
        body += varint(len(stream.body) * 8 + (FLOAT_STREAM if stream.codec is None else stream.codec)) + stream.body
    return bytes(body)


def other_type(value: Tensor, entry: Entry) -> Form | None:
    """A plain tensor needs no schema, unless it is of another type than it was."""
    return None if value.dtype == entry.dtype else Dense(value)


def record_head(schema: int, before: torch.Size, after: torch.Size, name: str) -> bytes:
    """Which schema holds the entry (0: none), and the sizes that changed."""
    if len(before) != len(after):
        raise BadNetwork(
            f"file: {name} has {len(after)} axes, {len(before)} in the original network. Such a change cannot be stored."
        )
    changed = [axis for axis in range(len(before)) if before[axis] != after[axis]]
    head = varint(schema * 2 + bool(changed))
    if changed:
        head += varint(sum(1 << axis for axis in changed)) + b"".join(varint(after[axis]) for axis in changed)
    return head


def read_contents(body: bytes, own: Sequence[type[Part]] = ()) -> Contents:
    """Take a file apart without decoding its streams.  Raises BadFile: not ours, cut short, altered, newer."""
    if len(body) < len(MAGIC) + 14 or body[: len(MAGIC)] != MAGIC:
        raise BadFile("file: this is not a .cortado file (it does not begin with CRTD). Make one with cortado.save.")
    version = body[len(MAGIC)]
    if not 1 <= version <= VERSION:
        raise BadFile(f"file: it is of version {version}, this reader knows versions 1 to {VERSION}. Update cortado.")
    if zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
        raise BadFile("file: the checksum is wrong: the file was cut short or altered. Fetch or make it again.")
    cursor = Cursor(body[:-4])
    cursor.take(len(MAGIC) + 1)
    mark = cursor.take(8)
    forms = [one for one in own if issubclass(one, Form)]
    blocks, edits, quantizers = read_head(cursor, version, own)
    schemas = tuple(read_schema(cursor, forms) for _ in range(cursor.number(cursor.left)))
    records = []
    while cursor.left:
        records.append(read_record(cursor, schemas))
    return Contents(version, mark, blocks, edits, quantizers, schemas, tuple(records), len(body))


def read_head(cursor: Cursor, version: int, own: Sequence[type[Part]]) -> tuple[Placed, Edits, Placed]:
    """Read the blocks, edits and activation quantizers of any version."""
    if version < VERSION:
        former = read_former(cursor, version)
        return former.blocks, former.edits, read_placed(cursor, ACTIVATIONS, own) if version == ROUNDED else Placed()
    sections = cursor.number(HAS_BLOCKS + HAS_EDITS + HAS_QUANTIZERS)
    if sections & HAS_BLOCKS and not sections & HAS_EDITS:
        raise BadFile("file: it has blocks and no check of their places. The file is damaged.")
    blocks = read_placed(cursor, BLOCKS, own) if sections & HAS_BLOCKS else Placed()
    edits = read_edits(cursor) if sections & HAS_EDITS else Edits()
    return blocks, edits, read_placed(cursor, ACTIVATIONS, own) if sections & HAS_QUANTIZERS else Placed()


def read_record(cursor: Cursor, schemas: tuple[Schema, ...]) -> StoredEntry:
    start = cursor.at
    head = cursor.number(len(schemas) * 2 + 1)
    schema = None if head < 2 else schemas[head // 2 - 1]
    sizes: dict[int, int] = {}
    if head % 2:
        axes = cursor.number(255)
        sizes = {axis: cursor.number(2**32) for axis in range(8) if axes >> axis & 1}
    streams = tuple(read_stream(cursor, part) for part in part_names(schema))
    return StoredEntry(schema, sizes, streams, cursor.at - start)


def part_names(schema: Schema | None, prefix: str = "") -> list[str]:
    """The names of the streams that a schema has, in order."""
    if schema is None:
        return ["values"]
    names, inner = [], list(schema.inner)
    for name, sort in schema.form.arrays.items():
        names += part_names(inner.pop(0), f"{prefix}{name}.") if sort == PART else [prefix + name]
    return names


def read_stream(cursor: Cursor, part: str) -> Stream:
    head = cursor.number()
    return Stream(part, None if head % 8 == FLOAT_STREAM else head % 8, cursor.take(head // 8))


def decode(body: bytes, original: Original, forms: Sequence[type[Part]] = ()) -> nn.Module:
    """The network that a file holds, made from a copy of `original`.  Raises BadFile, WrongNetwork."""
    contents = read_contents(body, forms)
    made = original_network(original)
    network = without_values(made) if made is original else made
    entries = entries_of(network)
    if contents.fingerprint != fingerprint(network, entries):
        raise WrongNetwork(
            f"file: it was made from another network than this {type(network).__name__}: names, shapes or layers differ. "
            "Pass the network, or the maker, that it was compressed from."
        )
    layout = contents.layout(network)
    edits = resolve(contents.edits, layout)
    entries = layout.stored(contents.edits.loose)
    if len(contents.records) != len(entries):
        raise BadFile(f"file: {len(contents.records)} records for {len(entries)} tensors. The file is damaged.")
    values = in_parallel(lambda pair: decode_record(*pair), zip(contents.records, entries, strict=True))
    modules = dict(network.named_modules())
    for entry, value in zip(entries, values, strict=True):
        put_entry(modules, entry, value)
    edits.set_numbers()
    note_cuts(network, edits.names(network))
    put_quantizers(layout.module, contents.quantizers)
    return network.eval()


def decode_record(record: StoredEntry, entry: Entry) -> Form | Tensor:
    if any(axis >= len(entry.shape) for axis in record.sizes):
        raise BadFile(f"file: {entry.name} has no axis {max(record.sizes)}. The file is damaged.")
    shape = torch.Size(record.sizes.get(axis, size) for axis, size in enumerate(entry.shape))
    # torch counts entries in 64 bits, where three axes of 2**31 are none.
    if math.prod(shape) > 16 * entry.shape.numel() + 4096 or max(shape, default=0) > 2**31:
        raise BadFile(
            f"file: {entry.name} claims the shape {tuple(shape)}, for {tuple(entry.shape)}. The file is damaged."
        )
    try:
        if record.schema is None:
            return decode_tensor(record.streams[0], shape, entry.dtype)
        form = decode_form(record.schema, Place(shape), list(record.streams))
    except (BadValue, ValueError, RuntimeError, IndexError, OverflowError) as error:
        raise (
            error
            if isinstance(error, BadFile)
            else BadFile(f"file: {entry.name} cannot be decoded ({error}). The file is damaged.")
        ) from error
    return form.dense().detach() if form.plain and not entry.learned else form


@old_arguments(FILE)
def save(network: nn.Module, path: str | Path, original: Original, codec: str = "smallest") -> int:
    """Write `network` to `path`; gives the size in bytes.

    >>> size_bytes = cortado.save(small, "net.cortado", original=net)

    `original` is the network it was compressed from (or its maker): the file holds the difference. Written under another
    name and renamed, so that a crash leaves no half a file. Raises BadNetwork.
    """
    body = encode(network, original, codec)
    write_whole(Path(path), body)
    return len(body)


@old_arguments(FILE)
def load(path: str | Path, original: Original, forms: Sequence[type[Part]] = ()) -> nn.Module:
    """The network that the file at `path` holds, in eval mode, bit for bit as it was saved.

    >>> again = cortado.load("net.cortado", original=net)

    `original` is the network it was compressed from, or its maker; its weights do not matter. `forms` are classes of
    your own that hold weights or round activations. Raises BadFile when the file is missing, damaged or not ours,
    WrongNetwork when `original` is another one.
    """
    return decode(read_bytes(path), original, forms)
