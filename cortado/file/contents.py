"""Contents: a file taken apart down to its coded streams, before anything is decoded.  Any version."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from cortado.errors import BadFile
from cortado.file.edits import Edits, read_edits, resolve
from cortado.file.entries import Entry
from cortado.file.former import ROUNDED, read_former
from cortado.file.layout import Layout, laid_out, without_values
from cortado.file.placed import ACTIVATIONS, BLOCKS, Placed, read_placed
from cortado.file.schema import Schema, read_schema
from cortado.file.streams import Stream
from cortado.file.wire import Cursor
from cortado.parts.forms.form import Form
from cortado.parts.part import PART, Part

MAGIC, VERSION = b"CRTD", 4
HAS_BLOCKS, HAS_EDITS, HAS_QUANTIZERS = 1, 2, 4
"""Which sections a file has, added up."""
FLOAT_STREAM = 7
"""Stands in the place of a codec's number for streams of floats."""


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
    if sections & HAS_EDITS and not (blocks or edits):
        raise BadFile("file: it announces edits and has none. The file is damaged.")
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
