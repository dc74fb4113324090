"""Files as versions 1 to 3 wrote them, made by hand from a network: nothing else writes them any more."""

import copy
import zlib
from collections.abc import Iterable
from itertools import pairwise

from torch import nn

from cortado.file.artifact import encode
from cortado.file.contents import read_contents
from cortado.file.entries import entries_of, fingerprint
from cortado.file.placed import ACTIVATIONS, Placed, write_placed
from cortado.file.wire import varint


def sealed(data: bytes | bytearray) -> bytes:
    """With its checksum."""
    return bytes(data) + zlib.crc32(data).to_bytes(4, "little")


def former_head(version: int, original: nn.Module, edits: bytes = b"", quantizers: bytes = b"") -> bytes:
    """A file of a former version down to its schemas."""
    return b"CRTD" + bytes([version]) + fingerprint(original, entries_of(original)) + edits + quantizers


def former_edits(
    removed: Iterable[int] = (),
    loose: Iterable[int] = (),
    numbers: Iterable[tuple[int, int, int]] = (),
    check: bytes = b"",
) -> bytes:
    """The edits of versions 2 and 3: removed modules, buffers, (module, rank, value), check."""
    removed, loose, numbers = list(removed), list(loose), list(numbers)
    body = varint(len(removed)) + b"".join(varint(one - before - 1) for before, one in pairwise([0, *removed]))
    body += varint(len(loose)) + b"".join(varint(one - before - 1) for before, one in pairwise([-1, *loose]))
    modules = sorted({module for module, _, _ in numbers})
    body += varint(len(modules))
    for before, module in pairwise([-1, *modules]):
        own = [(rank, value) for at, rank, value in numbers if at == module]
        body += varint(module - before - 1) + varint(len(own))
        for (last, _), (rank, value) in pairwise([(-1, 0), *own]):
            body += varint(rank - last - 1) + varint(value)
    return body + check


def former_file(network: nn.Module, original: nn.Module, version: int) -> bytes:
    """The file of a network with removed modules, edits and quantizers as a former version has it.

    Bypasses have no modules inside, so that only the numbers of modules differ from those of version 4.
    """
    body = encode(network, original)
    contents = read_contents(body)
    mapping = numbers_before(contents.layout(copy.deepcopy(original)).paths, original)
    removed = [number for number, _ in contents.blocks.places]
    changed = [(mapping[module], rank, value) for module, rank, value in contents.edits.numbers]
    edits = former_edits(removed, contents.edits.loose, changed, contents.edits.check)
    places = tuple((mapping[module], side) for module, side in contents.quantizers.places)
    quantizers = Placed(places, contents.quantizers.serves, contents.quantizers.parts)
    head = former_head(
        version, original, edits if version > 1 else b"", write_placed(quantizers, ACTIVATIONS) if version == 3 else b""
    )
    sizes = sum(part.size_bytes for part in (contents.blocks, contents.edits, contents.quantizers))
    return sealed(head + body[14 + sizes : -4])


def numbers_before(paths: tuple[str, ...], original: nn.Module) -> list[int]:
    """The number of each of these modules in the original network."""
    order = [path for path, _ in original.named_modules()]
    return [order.index(path) for path in paths]
