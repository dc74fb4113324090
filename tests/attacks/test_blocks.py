"""Hostile block sections: unknown classes, places that are not there, huge claims, contradictions; memory stays bounded."""

import random
import re
import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork, CortadoError, WrongNetwork
from cortado.file.artifact import decode, encode, load
from cortado.file.contents import HAS_BLOCKS, HAS_EDITS, HAS_QUANTIZERS, read_contents
from cortado.file.edits import Edits, check_of, write_edits
from cortado.file.layout import laid_out
from cortado.file.placed import ACTIVATIONS, BLOCKS, Description, Placed, numbers, write_placed
from cortado.file.wire import varint
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.pact import Pact
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.activations.sign import Sign
from cortado.parts.activations.unit import Unit
from cortado.parts.blocks.block import ORIGINAL, Block, stand_in
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.scale_shift import ScaleShift
from tests.file.former_files import former_head, sealed


class Gate(Block):
    """A user's block that keeps its module."""

    arrays = {"inner": ORIGINAL}
    facts = ("channels",)

    def __init__(self, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.inner, self.gate, self.channels = inner, nn.Linear(channels, channels), channels

    def forward(self, values: Tensor) -> Tensor:
        return self.inner(values) * self.gate.bias.mean()


class Picky(Block):
    """A user's block whose maker fails in ways of its own."""

    facts = ("size",)

    def __init__(self, size: int) -> None:
        super().__init__()
        self.share = 1 / size
        self.size = [size][size - 1]

    def forward(self, values: Tensor) -> Tensor:
        return values


def original() -> nn.Module:
    """Modules: 0 itself, 1 Conv1d, 2 BatchNorm1d, 3 Sequential, 4 its Linear, 5 its ReLU, 6 Linear, 7 Identity."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), inner, nn.Linear(6, 2), nn.Identity()).eval()


OUT = Description(Bypass, (), {})
SHIFT = Description(ScaleShift, (4, 2), {})
GATE = Description(Gate, (3,), {})


def placed(*blocks: tuple[int, Description]) -> Placed:
    """Blocks at modules, each a part of its own."""
    return Placed(
        tuple((number, 0) for number, _ in blocks), tuple(range(len(blocks))), tuple(one for _, one in blocks)
    )


def file_with(section: bytes, sections: int = HAS_BLOCKS + HAS_EDITS, edits: bytes = b"\0\0??") -> bytes:
    """A file with this section of blocks, and the records of the network as it is."""
    return sealed(
        former_head(4, original(), varint(sections) + section + edits) + encode(original(), original())[14:-4]
    )


def refusal(*blocks: tuple[int, Description]) -> str:
    """What the reader says of a file with these blocks; the check is right where it can be made."""
    try:
        edits = write_edits(Edits(check=check_of(laid_out(original(), placed(*blocks)), Edits())))
    except BadFile:
        edits = b"\0\0??"
    with pytest.raises(BadFile, match="^file: ") as caught:
        decode(file_with(write_placed(placed(*blocks), BLOCKS), edits=edits), original(), [Gate, Picky])
    return str(caught.value)


def sound() -> nn.Module:
    """A removed module, a folded norm and two blocks that keep theirs."""
    small = original()
    stand_in(small, small[1], ScaleShift(4, 2))
    stand_in(small, small[2], Gate(small[2], 3))
    stand_in(small, small[2].inner[0], Bypass())
    stand_in(small, small[3], Gate(small[3], 2))
    put_quantizer(small[3].inner, "input", Affine(0.5, 0, 8))
    return small.eval()


def test_sound_blocks_are_taken():
    body, example = encode(sound(), original()), torch.randn(2, 2, 8)
    assert body[13] == HAS_BLOCKS + HAS_EDITS + HAS_QUANTIZERS
    assert torch.equal(decode(body, original(), [Gate])(example), sound()(example))


def test_block_of_a_newer_version_names_its_key_and_the_way_out(tmp_path):
    (tmp_path / "net.cortado").write_bytes(encode(sound(), original()))
    with pytest.raises(BadFile, match=r"uses a block that is not known here \(key [0-9a-f]{4}\)") as caught:
        load(tmp_path / "net.cortado", original)
    for way_out in ("load(..., forms=[MyBlock])", "forms: [package.module:MyBlock]", "or update cortado."):
        assert way_out in str(caught.value)


def test_contract_itself_is_no_block():
    abstract = Description(Block, (), {})
    assert "uses a block that is not known here" in refusal((1, abstract))


def test_quantizers_are_no_blocks_and_blocks_no_quantizers():
    assert "uses a block that is not known here" in refusal(
        (1, Description(Affine, (8,), {"scale": torch.ones(1), "zero": torch.zeros(1)}))
    )
    section = write_placed(Placed(((1, 0),), (0,), (OUT,)), ACTIVATIONS)
    with pytest.raises(BadFile, match="rounds activations in a way that is not known here"):
        decode(file_with(section, HAS_QUANTIZERS, b""), original())


@pytest.mark.parametrize(
    ("number", "words"), [(0, "cannot stand in the place of the whole network"), (8, "module 8 of 8"), (2**30, "of 8")]
)
def test_modules_that_are_not_there_are_refused(number, words):
    assert words in refusal((number, OUT))


def test_blocks_inside_removed_modules_are_refused():
    assert "2.0 is to be replaced and is not there" in refusal((3, OUT), (4, OUT))
    assert "2.0 is to be replaced and is not there" in refusal((3, SHIFT), (4, GATE))


def test_same_place_twice_is_refused_unless_the_later_block_keeps_the_former():
    assert "block 2 of those at 2 cannot stand around the others" in refusal((3, OUT), (3, OUT))
    assert "block 2 of those at 1 cannot stand around the others" in refusal((2, GATE), (2, SHIFT))
    assert "'gate' is also a name in Gate" in refusal((3, GATE), (3, GATE))
    assert "4 is to be removed and is not there" in refusal((7, OUT))


def test_descending_places_are_refused():
    assert "contradicts itself" in refusal((3, OUT), (1, OUT))


@pytest.mark.parametrize("size", [2**24, 2**23])
@pytest.mark.parametrize(("kind", "more"), [(ScaleShift, (2,)), (Gate, ())])
def test_huge_claims_are_refused_before_any_memory_is_taken(kind, more, size):
    tracemalloc.start()
    try:
        assert "claim more entries than fit such a network" in refusal((3, Description(kind, (size, *more), {})))
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_claims_of_many_blocks_are_counted_together():
    large = Description(ScaleShift, (2**18, 2), {})
    words = refusal(*((number, large) for number in (1, 2, 3, 6)))
    assert "its blocks claim more entries than fit such a network" in words
    assert "claim more entries" not in refusal((1, large)), "one of them is not too large"


def test_fact_that_no_number_can_be_is_refused():
    section = write_placed(placed((3, Description(ScaleShift, (2**24 + 1, 2), {}))), BLOCKS)
    with pytest.raises(BadFile, match="at most 16777216"):
        decode(file_with(section), original())


@pytest.mark.parametrize("size", [0, 7])
def test_errors_of_a_users_class_become_ours(size):
    assert f"Picky cannot be made of {{'size': {size}}}" in refusal((3, Description(Picky, (size,), {})))


@pytest.mark.parametrize("count", [2**17 + 1, 2**24, 2**60])
def test_lists_of_any_length_take_no_memory(count):
    section = varint(count) + varint(1) + varint(1) + numbers(np.zeros(0, np.int32)) * 2
    for body in (file_with(section), file_with(section, HAS_QUANTIZERS, b"")):
        with pytest.raises(BadFile, match="at most 131072"):
            decode(body, original())


def test_long_list_that_is_allowed_ends_at_its_second_block():
    body = write_placed(Placed(((3, 0),) * 2**17, (0,) * 2**17, (GATE,)), BLOCKS)
    with pytest.raises(BadFile, match="'gate' is also a name in Gate"):
        decode(file_with(body), original(), [Gate])


def test_blocks_without_a_check_or_with_a_wrong_one_are_refused():
    section = write_placed(placed((3, OUT)), BLOCKS)
    with pytest.raises(BadFile, match="it has blocks and no check of their places"):
        decode(file_with(section, HAS_BLOCKS, b""), original())
    with pytest.raises(WrongNetwork, match="what it edits is not there"):
        decode(file_with(section), original())
    check = check_of(laid_out(original(), placed((3, OUT))), Edits())
    with pytest.raises(BadFile, match="9 records for 7 tensors|records for"):
        decode(file_with(section, edits=write_edits(Edits(check=check))), original())


@pytest.mark.parametrize("sections", [8, 15, 255, 2**40])
def test_unknown_sections_are_refused(sections):
    with pytest.raises(BadFile, match="at most 7"):
        decode(file_with(b"", sections, b""), original())


def test_section_with_nothing_in_it_is_refused():
    for sections in (HAS_BLOCKS + HAS_EDITS, HAS_QUANTIZERS):
        with pytest.raises(BadFile, match="announces 0 parts"):
            decode(file_with(b"\0\0\0" + b"\0" * 3, sections), original())


def test_replacing_all_that_has_tensors_is_refused():
    assert "is removed and had all tensors of the network" in refusal((1, OUT), (2, OUT), (3, OUT), (6, OUT))
    bare = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    small = nn.Sequential(Bypass(), nn.ReLU())
    with pytest.raises(BadNetwork, match="0 is removed and had all tensors of the network. Leave a layer"):
        encode(small, bare)


def test_names_that_clash_are_refused_by_the_writer_in_its_own_words():
    base = nn.Sequential(nn.Sequential(), nn.Linear(2, 2))
    base[0].add_module("gate", nn.Linear(2, 2))
    small = nn.Sequential(nn.Sequential(), nn.Linear(2, 2))
    small[0].add_module("gate", nn.Linear(2, 2))
    small[0] = Gate(small[0], 2)
    with pytest.raises(BadNetwork, match=re.escape("child modules with names of their own.") + "$"):
        encode(small, base)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_flipped_bits_and_rubbish_are_refused_or_a_network():
    data, dice = encode(sound(), original()), random.Random(3)
    contents = read_contents(data, [Gate])
    size = contents.blocks.size_bytes + contents.edits.size_bytes + contents.quantizers.size_bytes
    broken = [(13 * 8 + bit, None) for bit in range((size + 1) * 8)] + [(0, dice.randbytes(30)) for _ in range(200)]
    refused = 0
    for bit, rubbish in broken:
        body = bytearray(data[:-4])
        if rubbish is None:
            body[bit // 8] ^= 1 << bit % 8
        else:
            body[14 : 14 + len(rubbish)] = rubbish
        try:
            assert isinstance(decode(sealed(body), original(), [Gate]), nn.Module)
        except CortadoError as error:
            assert str(error).startswith("file: ")
            refused += 1
    assert refused > 0.8 * len(broken)


BAD_QUANTIZERS = [
    (Affine, (0,), (0.5, 0)), (Affine, (2**24,), (0.5, 0)), (Affine, (8,), (float("nan"), 0)), (Affine, (8,), (-1.0, 0)),
    (Affine, (8,), (0.5, 300)), (Affine, (8,), (0.5, -(2**31))), (Pact, (8,), (-1.0,)), (Pact, (0,), (1.0,)),
    (Unit, (2**24, 0), ()), (Sign, (1, 0, 2**24), ()),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "facts", "values"), BAD_QUANTIZERS)
def test_quantizers_whose_numbers_do_not_fit_are_refused(kind, facts, values):
    held = {name: torch.tensor([value]) for name, value in zip(kind.arrays, values, strict=True)}
    section = write_placed(Placed(((1, 0),), (0,), (Description(kind, facts, held),)), ACTIVATIONS)
    with pytest.raises(BadFile, match=f"activations/{kind.__name__.lower()}: .* must"):
        decode(file_with(section, HAS_QUANTIZERS, b""), original())


def test_columns_of_another_length_are_refused():
    one = Description(Affine, (8,), {"scale": torch.ones(1), "zero": torch.zeros(1)})
    section = write_placed(Placed(((1, 0),), (0,), (one,)), ACTIVATIONS)
    place = section.rindex(b"\x04\x00\x00\x80\x3f")
    for column in (b"\x00", b"\x03\x00\x00\x80", b"\x08" + b"\x00\x00\x80\x3f" * 2):
        with pytest.raises(BadFile, match="^file: "):
            decode(file_with(section[:place] + column + section[place + 5 :], HAS_QUANTIZERS, b""), original())
