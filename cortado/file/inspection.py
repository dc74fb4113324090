"""Inspection: where the bytes of a file go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cortado.errors import WrongNetwork
from cortado.file.artifact import Original, original_network
from cortado.file.contents import Contents, read_contents
from cortado.file.entries import entries_of, fingerprint
from cortado.file.plane import CODECS
from cortado.file.tensors import RAW
from cortado.file.whole import read_bytes
from cortado.parts.part import Part
from cortado.renamed import FILE, old_arguments
from cortado.table import aligned

CODEC_NAMES = {number: name for name, number in CODECS.items()} | {RAW: "raw"}


@dataclass(frozen=True)
class Piece:
    """One entry of the file: its name (or its number), shape if known, form, bytes, and its streams."""

    name: str
    shape: tuple[int, ...] | None
    form: str
    size_bytes: int
    streams: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Inspection:
    """A file taken apart.  Bytes of the pieces, of what is `besides` and `overhead_bytes` add up to `size_bytes`.

    Besides tensors a file may say what a cut changed, and what rounds activations: words and bytes of each.
    """

    size_bytes: int
    overhead_bytes: int
    fingerprint: str
    pieces: tuple[Piece, ...]
    besides: tuple[tuple[str, int], ...] = ()

    def text(self) -> str:
        """A table for people."""
        rows = [("tensor", "shape", "form", "bytes", "share", "streams")]
        for piece in self.pieces:
            shape = "x".join(map(str, piece.shape)) if piece.shape is not None else "unknown"
            streams = ", ".join(f"{part} {codec} {size:,}" for part, codec, size in piece.streams if size)
            share = f"{100 * piece.size_bytes / self.size_bytes:.1f} %"
            rows.append((piece.name, shape or "scalar", piece.form, f"{piece.size_bytes:,}", share, streams))
        for words, size_bytes in (*self.besides, ("header, schemas, checksum", self.overhead_bytes)):
            rows.append((words, "", "", f"{size_bytes:,}", "", ""))
        title = f"{self.size_bytes:,} bytes, fingerprint {self.fingerprint}, {len(self.pieces)} tensors"
        return f"{title}\n\n{aligned(rows, '<<<>><')}"


@old_arguments(FILE)
def inspect(path: str | Path, original: Original | None = None, forms: Sequence[type[Part]] = ()) -> Inspection:
    """Take the file at `path` apart; with the original network, names and shapes are known too.

    >>> table = cortado.inspect("net.cortado", net).text()

    `forms` are your own classes of forms and blocks. Raises BadFile when it is damaged or not ours, WrongNetwork when
    `original` is another network.
    """
    contents = read_contents(read_bytes(path), forms)
    names, shapes = labels(contents, original)
    pieces = []
    for number, record in enumerate(contents.records):
        shape = shapes[number]
        if shape is not None:
            shape = tuple(record.sizes.get(axis, size) for axis, size in enumerate(shape))
        form = "original" if record.schema is None else record.schema.text()
        streams = tuple(
            (s.part, "floats" if s.codec is None else CODEC_NAMES.get(s.codec, "unknown"), len(s.body))
            for s in record.streams
        )
        pieces.append(Piece(names[number], shape, form, record.size_bytes, streams))
    sections = (
        (contents.blocks, contents.blocks.text("blocks in modules' places")),
        (contents.edits, contents.edits.text() or "check of the blocks"),
        (contents.quantizers, contents.quantizers.text("activations rounded")),
    )
    besides = tuple((text, part.size_bytes) for part, text in sections if part.size_bytes)
    used = sum(piece.size_bytes for piece in pieces) + sum(size_bytes for _, size_bytes in besides)
    total = contents.size_bytes
    return Inspection(total, total - used, contents.fingerprint.hex(), tuple(pieces), besides)


def labels(contents: Contents, original: Original | None) -> tuple[list[str], list[tuple[int, ...] | None]]:
    """The names and plain shapes of the records; numbers and None without the original network."""
    count = len(contents.records)
    if original is None:
        return [f"#{number}" for number in range(count)], [None] * count
    base = original_network(original)
    same = fingerprint(base, entries_of(base)) == contents.fingerprint
    entries = contents.stored(base) if same else []
    if len(entries) != count:
        raise WrongNetwork("inspect: the file was made from another network than this one. Pass its own job, or none.")
    return [entry.name for entry in entries], [tuple(entry.shape) for entry in entries]
