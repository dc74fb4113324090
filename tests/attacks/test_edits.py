"""Hostile edits: modules, buffers and numbers that are not there, sizes that nothing can have."""

import random

import pytest
import torch
from torch import nn

from cortado.errors import BadFile, CortadoError
from cortado.file.artifact import decode, encode
from cortado.file.contents import HAS_EDITS, read_contents
from cortado.file.edits import Edits, check_of, write_edits
from cortado.file.layout import laid_out
from cortado.file.placed import ACTIVATIONS, Description, Placed, parts_in_places, write_placed
from cortado.file.slots import slots_of
from cortado.file.wire import varint
from cortado.parts.activations.affine import Affine
from cortado.parts.blocks.bypass import Bypass
from tests.file.former_files import former_edits, former_head, sealed


class Heads(nn.Module):
    """A module of a user's own, with a number, a list and a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.sizes, self.start = 4, [3, 5], -2
        self.register_buffer("places", torch.arange(8.0), persistent=False)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU())


def original() -> nn.Module:
    """Modules: 0 itself, 1 Conv1d, 2 GroupNorm, 3 Heads, 4 its Sequential, 5 Linear, 6 ReLU, 7 Identity."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 8, 3), nn.GroupNorm(4, 8), Heads(), nn.Identity()).eval()


def records() -> bytes:
    """Schemas and records of the network as it is."""
    return encode(original(), original())[14:-4]


def file_with(section: bytes, version: int = 4) -> bytes:
    """A sound file but for its edits."""
    sections = varint(HAS_EDITS) if version == 4 else b""
    none = b""
    if version == 3:
        none = write_placed(parts_in_places([((1, 0), Affine(0.5, 0, 8))]), ACTIVATIONS)
    return sealed(former_head(version, original(), sections + section, none) + records())


def rank_of(module: int, name: str, place: int | None = None) -> int:
    slots = slots_of(list(original().modules())[module])
    return next(rank for rank, slot in enumerate(slots) if (slot.name, slot.place) == (name, place))


def right_check(edits: Edits, removed: tuple[int, ...] = ()) -> bytes:
    """The check of these edits where it can be made."""
    try:
        parts = ((number, 0) for number in removed)
        places = Placed(tuple(parts), (0,) * len(removed), (Description(Bypass, (), {}),))
        return check_of(laid_out(original(), places, former=True), edits)
    except (IndexError, KeyError, AssertionError, BadFile):
        return b"??"


def refusal(edits: Edits, check: bytes | None = None, removed: tuple[int, ...] | None = None) -> str:
    """What the reader says of a file with these edits; the same in version 4 and in former ones, which may remove modules."""
    check = right_check(edits, removed or ()) if check is None else check
    former = former_edits(removed or (), edits.loose, edits.numbers, check)
    files = [file_with(former, 2), file_with(former, 3)]
    if removed is None:
        files.append(file_with(write_edits(Edits(edits.loose, edits.numbers, check))))
    found = []
    for file in files:
        with pytest.raises(BadFile, match="^file: ") as caught:
            decode(file, original())
        found.append(str(caught.value))
    assert len(set(found)) == 1
    return found[0]


def test_sound_edits_are_taken():
    numbers = (2, rank_of(2, "num_groups"), 2), (3, rank_of(3, "sizes", 1), 4), (3, rank_of(3, "start"), 1)
    check = right_check(Edits((), numbers))
    former = former_edits((), (), numbers, check)
    for file in (file_with(write_edits(Edits((), numbers, check))), file_with(former, 2), file_with(former, 3)):
        again = decode(file, original())
        assert again[1].num_groups == 2 and again[2].sizes == [3, 4] and again[2].start == -1
        assert again[2].num_heads == 4


def test_modules_that_are_not_there_are_refused():
    assert "a block stands in the place of module 8 of 8" in refusal(Edits(), removed=(8,))
    assert "it edits module 2000000 of" in refusal(Edits(numbers=((2_000_000, 0, 1),)))
    assert "3 is to be removed and is not there" in refusal(Edits(), removed=(7,))
    assert "2.inner is to be replaced and is not there" in refusal(Edits(), removed=(3, 4))
    assert "2.inner.1 is to be replaced and is not there" in refusal(Edits(), removed=(4, 6))


def test_the_network_itself_cannot_be_said_to_be_removed():
    assert refusal(Edits(), removed=(1, 2, 3)) == (
        "file: 0, 1, 2 is removed and had all tensors of the network. The file is damaged."
    )
    assert former_edits((1,))[:2] == b"\1\0", "no list can name module 0"


def test_numbers_that_are_not_there_are_refused():
    most = len(slots_of(original()[2]))
    assert f"it sets number {most} of 2, which has none such" in refusal(Edits(numbers=((3, most, 1),)))
    assert "it sets number 0 of the network, which" in refusal(Edits(numbers=((0, 0, 1),)))
    assert "it edits module 5 of a network that has 8" in refusal(Edits(numbers=((5, 0, 1),)), removed=(4,))


@pytest.mark.parametrize("size", [0, 9, 2**20, 2**31])
def test_sizes_that_nothing_can_have_are_refused(size):
    rank = rank_of(2, "num_groups")
    assert f"it sets 1.num_groups, 4, to {size}" in refusal(Edits(numbers=((2, rank, size),)))


def test_module_numbers_lie_between_zero_and_the_largest_axis():
    rank = rank_of(3, "num_heads")
    assert "it sets 2.num_heads, 4, to 9" in refusal(Edits(numbers=((3, rank, 9),)))
    edits = Edits(numbers=((3, rank, 0),))
    section = write_edits(Edits((), edits.numbers, right_check(edits)))
    assert decode(file_with(section), original())[2].num_heads == 0


def test_buffers_that_are_not_there_are_refused():
    assert "it has buffer 1 of those that are not saved" in refusal(Edits(loose=(1,)))
    assert "6 records for 7 tensors" in refusal(Edits(loose=(0,)))


def test_records_of_removed_modules_are_refused():
    assert "6 records for 4 tensors" in refusal(Edits(), removed=(2,))


def test_wrong_check_is_refused():
    assert "what it edits is not there" in refusal(Edits(numbers=((2, rank_of(2, "num_groups"), 2),)), b"no")


BROKEN = [
    (b"\0\0ab", "announces edits and has none"),
    (b"\0\1\2\0ab", "is listed for new numbers and has none"),
    (varint(2**40), "at most"),
    (b"\0" + varint(2**62), "at most"),
    (b"\0\1\0" + varint(2**62), "at most"),
    (b"\1" + varint(2**40) + b"\0ab", "at most"),
    (b"\xff" * 20, "has no end"),
]


@pytest.mark.parametrize(("section", "says"), BROKEN)
def test_broken_sections_are_refused_before_any_memory_is_taken(section, says):
    for file in (file_with(section), file_with(b"\0" + section, 2)):
        with pytest.raises(BadFile, match=says):
            decode(file, original())
    with pytest.raises(BadFile, match="at most"):
        decode(file_with(varint(2**40), 2), original())


def test_flipped_bits_of_edits_are_refused_or_harmless():
    small = original()
    small[2].inner = nn.Identity()
    small[1].num_groups = 2
    small[0].weight.data = small[0].weight.data[:6]
    small[0].bias.data = small[0].bias.data[:6]
    small[1].weight.data, small[1].bias.data = small[1].weight.data[:6], small[1].bias.data[:6]
    data = encode(small, original())
    contents, size = read_contents(data), read_contents(data).blocks.size_bytes + read_contents(data).edits.size_bytes
    assert contents.blocks.size_bytes > 5 and contents.edits.size_bytes > 5
    refused = 0
    for place in range(13 * 8, (14 + size) * 8):
        broken = bytearray(data[:-4])
        broken[place // 8] ^= 1 << place % 8
        try:
            assert isinstance(decode(sealed(bytes(broken)), original()), nn.Module)
        except CortadoError as error:
            assert str(error).startswith("file: ")
            refused += 1
    assert refused > 6 * size


@pytest.mark.parametrize("version", [2, 3, 4])
def test_rubbish_as_edits_is_refused_or_a_network(version):
    dice = random.Random(version)
    for _ in range(200):
        try:
            decode(file_with(dice.randbytes(dice.randrange(1, 40)), version), original())
        except CortadoError as error:
            assert str(error).startswith("file: ")
