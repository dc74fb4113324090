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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork, BadValue, WrongNetwork
from cortado.file.beside import network_beside
from cortado.file.contents import (
    FLOAT_STREAM,
    HAS_BLOCKS,
    HAS_EDITS,
    HAS_QUANTIZERS,
    MAGIC,
    VERSION,
    StoredEntry,
    read_contents,
)
from cortado.file.differences import edits_of
from cortado.file.edits import Edits, resolve, write_edits
from cortado.file.entries import Entry, check_classes, check_original, entries_of, fingerprint, put_entry, stored_at
from cortado.file.layout import DAMAGED, Layout, laid_out, without_values
from cortado.file.placed import (
    ACTIVATIONS,
    BLOCKS,
    Placed,
    placed_blocks,
    placed_quantizers,
    put_quantizers,
    write_placed,
)
from cortado.file.schema import schema_of, write_schema
from cortado.file.streams import Place, Stream, decode_form, encode_form
from cortado.file.tensors import decode_tensor, encode_tensor
from cortado.file.whole import read_bytes, write_whole
from cortado.file.wire import varint
from cortado.layers.cut_numbers import note_cuts
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.part import Part
from cortado.renamed import FILE, old_arguments
from cortado.running.brought import accept

Original = nn.Module | Callable[[], nn.Module]


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
    body = head_of(mark, placed_blocks(network, base), edits, placed_quantizers(network, layout.network)) + varint(
        len(schemas)
    )
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
    blocks = placed_blocks(network, base)
    try:
        layout = laid_out(without_values(base) if blocks else base, blocks)
    except BadFile as error:
        raise BadNetwork(str(error).removesuffix(f" {DAMAGED}")) from error
    if layout.had_tensors and not layout.entries:
        raise BadNetwork(
            f"file: {', '.join(layout.replaced)} is removed and had all tensors of the network. Leave a layer that has tensors."
        )
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


def decode(body: bytes, original: Original, forms: Sequence[type[Part]] = ()) -> nn.Module:
    """The network that a file holds, made from a copy of `original`.  Raises BadFile, WrongNetwork."""
    contents = read_contents(body, forms)
    made = original_network(original)
    network = without_values(made) if made is original else made
    entries = entries_of(network)
    if contents.fingerprint != fingerprint(network, entries):
        raise WrongNetwork(
            f"file: it was made from another network than this {type(network).__name__}: names, shapes or layers differ. "
            "Pass the network, or the maker, that it was compressed from; after a stage student, that is the student."
        )
    layout = contents.layout(network)
    network = layout.network
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
    return form.dense().detach() if form.only_floats and not entry.learned else form


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
    try:
        return decode(read_bytes(path), original, forms)
    except WrongNetwork as error:
        name = network_beside(Path(path).parent)
        raise WrongNetwork(f"{error} The bundle around it names {name}." if name else str(error)) from error
