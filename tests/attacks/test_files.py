"""Broken and hostile files: always one of our errors, never a wrong network without a word, never a crash."""

import random
import struct
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from cortado.errors import BadFile, BadNetwork, CortadoError, WrongNetwork
from cortado.file.artifact import decode, encode, load, save
from cortado.file.contents import MAGIC, read_contents
from cortado.file.entries import entries_of, fingerprint
from cortado.file.inspection import inspect
from cortado.file.keys import key_of
from cortado.file.wire import varint, zigzag
from cortado.parts.forms.attach import attach
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.form import Form
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized


class Writer:
    """Puts numbers and bytes one after another."""

    def __init__(self):
        self.body = bytearray()

    def raw(self, data):
        self.body += data

    def number(self, value):
        self.body += varint(value)

    def signed(self, value):
        self.body += varint(zigzag(value))


def original() -> nn.Module:
    """A network with a kernel of three axes, a norm and a vector."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(8, 3)).eval()


def small() -> nn.Module:
    """The same, compressed."""
    network = original()
    weight = network[0].weight.detach()
    mask = weight.abs() > 0.15
    attach(
        network[0], "weight", Masked(mask, Codebook(torch.tensor([-0.3, 0.2, 0.4]), torch.arange(int(mask.sum())) % 3))
    )
    attach(network[3], "weight", Quantized.of(network[3].weight, 4, "channel", symmetric=False))
    return network


def body() -> bytes:
    return encode(small(), original())


def sealed(data: bytes) -> bytes:
    """With the checksum made again."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


NO_SECTIONS = b"\0"


def head(network: nn.Module) -> bytes:
    return MAGIC + bytes([4]) + fingerprint(network, entries_of(network)) + NO_SECTIONS


def file_of(network: nn.Module, write) -> bytes:
    """A file for `network` whose schemas and records are what `write` writes."""
    writer = Writer()
    writer.raw(head(network))
    write(writer)
    return sealed(bytes(writer.body) + b"\0\0\0\0")


def test_sound_file_loads():
    example = torch.randn(5, 2, 4)
    assert torch.equal(decode(body(), original())(example), small()(example))


@pytest.mark.parametrize("length", range(0, 60, 3))
def test_file_cut_short_is_refused(length):
    with pytest.raises(BadFile, match="file: "):
        decode(body()[:length], original())


def test_every_flipped_bit_is_noticed():
    data = body()
    for place in range(len(data) * 8):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(BadFile):
            decode(bytes(broken), original())


def test_flipped_bits_give_our_error_or_a_network():
    data = body()
    for place in range(len(data) * 8 - 32):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        try:
            assert isinstance(decode(sealed(bytes(broken)), original()), nn.Module)
        except CortadoError as error:
            assert str(error).startswith("file: ")


@pytest.mark.parametrize("more", [b"\0", b"\0" * 9, b"CRTD"])
def test_bytes_after_the_end_are_refused_even_under_a_new_checksum(more):
    with pytest.raises(BadFile):
        decode(body() + more, original())
    with pytest.raises(BadFile):
        decode(sealed(body()[:-4] + more + b"\0\0\0\0"), original())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"CRTD",
        b"PK\x03\x04" + b"\0" * 60,
        b"\x80\x04\x95" + b"a" * 60,
        b"\x89PNG" + b"\0" * 60,
        b"\x7fELF" + b"\0" * 60,
        b"{" * 80,
    ],
)
def test_foreign_files_are_refused_by_name(data, tmp_path):
    (tmp_path / "net.cortado").write_bytes(data)
    for reader in (lambda: load(tmp_path / "net.cortado", original), lambda: inspect(tmp_path / "net.cortado")):
        with pytest.raises(BadFile, match="this is not a .cortado file"):
            reader()


def test_newer_version_says_so():
    data = bytearray(body())
    data[4] = 9
    with pytest.raises(BadFile, match="it is of version 9, this reader knows versions 1 to 4. Update cortado"):
        decode(sealed(bytes(data)), original())


def test_file_of_another_network_is_refused():
    for other in (
        nn.Sequential(nn.Linear(2, 2)),
        nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(8, 4)),
    ):
        with pytest.raises(WrongNetwork, match="it was made from another network than this Sequential"):
            decode(body(), other)


def test_missing_file_is_refused_with_its_path(tmp_path):
    with pytest.raises(BadFile, match=r"nothing.cortado cannot be read \(No such file or directory\). Check the path"):
        load(tmp_path / "nothing.cortado", original)


def test_unknown_form_names_its_key_and_the_way_out():
    with pytest.raises(BadFile, match=r"a form that is not known here \(key ffff\). Pass the class, load\(..., forms="):
        decode(file_of(original(), lambda w: (w.number(1), w.raw(b"\xff\xff"))), original())


def test_forms_that_nest_without_end_are_refused():
    def write(writer):
        writer.number(1)
        for _ in range(200):
            writer.raw(key_of(Masked))

    with pytest.raises(BadFile, match="forms nest deeper than 8"):
        decode(file_of(original(), write), original())


@pytest.mark.parametrize("count", [2**20, 2**40, 2**55])
def test_huge_counts_and_lengths_are_refused_before_any_memory_is_taken(count):
    for write in (
        lambda w: w.number(count),
        lambda w: (w.number(0), w.number(0), w.number(count * 8 + 7)),
        lambda w: (w.number(0), w.number(count)),
    ):
        with pytest.raises(BadFile):
            decode(file_of(original(), write), original())


def test_number_without_end_is_refused():
    with pytest.raises(BadFile, match="has no end|cut short"):
        decode(file_of(original(), lambda w: w.raw(b"\xff" * 40)), original())


@pytest.mark.parametrize("size", [2**31, 2**32, 10**6])
@pytest.mark.parametrize("attached", [False, True])
def test_sizes_that_overflow_are_refused(size, attached):
    """2**31 cubed is 0 in 64 bits: a shape that seems to have no entries."""

    def write(writer):
        writer.number(int(attached))
        if attached:
            writer.raw(key_of(Quantized))
            for fact in (0, 0, 1):
                writer.signed(fact)
            writer.number(0)
        writer.number(2 * int(attached) + 1)
        writer.number(7)
        for _ in range(3):
            writer.number(size)
        for _ in range(3 if attached else 1):
            writer.number(7)

    with pytest.raises(BadFile):
        decode(
            file_of(nn.Sequential(nn.Conv1d(2, 4, 3, bias=False)), write), nn.Sequential(nn.Conv1d(2, 4, 3, bias=False))
        )


@pytest.mark.parametrize("fact", [-1, 0, 257, 2**40])
def test_codebook_of_an_impossible_size_is_refused(fact):
    def write(writer):
        writer.number(1)
        writer.raw(key_of(Codebook))
        writer.signed(fact)
        writer.number(0)
        writer.number(2)
        writer.number(7)
        writer.number(0)

    network = nn.Sequential(nn.Linear(2, 2, bias=False))
    with pytest.raises(BadFile, match="a codebook holds 1 to 256 values"):
        decode(file_of(network, write), network)


@pytest.mark.parametrize(("layout", "group"), [(3, 0), (-1, 0), (2, 0), (2, -5), (2, 2**40)])
def test_quantized_of_an_impossible_layout_is_refused(layout, group):
    def write(writer):
        writer.number(1)
        writer.raw(key_of(Quantized))
        for fact in (layout, group, 1):
            writer.signed(fact)
        writer.number(0)
        writer.number(2)
        for _ in range(3):
            writer.number(7)

    network = nn.Sequential(nn.Linear(2, 2, bias=False))
    with pytest.raises(BadFile):
        decode(file_of(network, write), network)


def test_rubbish_after_a_sound_head_is_refused_or_a_network():
    dice = random.Random(1)
    for _ in range(400):
        data = dice.randbytes(dice.randrange(1, 120))
        try:
            decode(file_of(original(), lambda w, data=data: w.raw(data)), original())
        except CortadoError as error:
            assert str(error).startswith("file: ")


def test_own_form_opens_only_with_its_class():
    network, layer = nn.Sequential(nn.Linear(2, 2, bias=False)), nn.Sequential(nn.Linear(2, 2, bias=False))
    attach(layer[0], "weight", Own(torch.ones(2, 2)))
    data = encode(layer, network)
    with pytest.raises(BadFile, match="a form that is not known here"):
        decode(data, network)
    assert torch.equal(decode(data, network, [Own])[0].weight, torch.ones(2, 2))


class Own(Form):
    """A form of a user's own: the negative of what it keeps."""

    arrays = {"values": "floats"}

    def __init__(self, values):
        super().__init__()
        self.shape = values.shape
        self.values = nn.Parameter(-values)

    def dense(self):
        return -self.values

    def map_values(self, fn):
        return fn(self.dense().detach())

    def narrow(self, axis, keep):
        return Own(self.dense().detach().index_select(axis, keep))

    def bits(self):
        return 32.0 * self.values.numel()

    def spec(self):
        return {}

    def parts(self):
        return {"values": self.values.detach()}

    @classmethod
    def from_parts(cls, shape, spec, parts):
        return cls(-parts["values"].reshape(shape))


def test_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "net.cortado"
    save(small(), path, original)
    before = path.read_bytes()
    with pytest.raises(BadNetwork):
        save(nn.Sequential(nn.Linear(1, 1)), path, original)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["net.cortado"]


def test_saving_a_network_with_another_layer_is_refused():
    changed = small()
    changed[1] = nn.Dropout()
    with pytest.raises(BadNetwork, match="file: 1 is BatchNorm1d in the original network, got Dropout"):
        encode(changed, original())


def test_saving_against_a_network_that_is_held_is_refused():
    with pytest.raises(BadNetwork, match="0 of the original network is held in a form. Pass the network as it came"):
        encode(small(), small())


@pytest.mark.parametrize("made", [None, 3, {"state": 1}])
def test_plain_that_is_no_network_is_refused(made):
    with pytest.raises(BadNetwork, match=f"file: the network must be a torch.nn.Module, got {type(made).__name__}"):
        decode(body(), lambda: made)


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int16, torch.bool, torch.complex64, torch.uint8],
)
def test_buffers_of_every_type_come_back_bit_for_bit(dtype):
    class Buffers(nn.Module):
        def __init__(self):
            super().__init__()
            noise = torch.randn(3, 5, generator=torch.Generator().manual_seed(4)) * 100
            self.register_buffer("values", noise.to(dtype) if dtype != torch.bool else noise > 0)
            self.register_buffer("large", torch.tensor([2**60, -(2**61)]))
            self.register_buffer("nothing", torch.zeros(0, 3))
            self.register_buffer("one", torch.tensor(7))

    again = decode(encode(Buffers(), Buffers()), Buffers())
    for key, value in Buffers().state_dict().items():
        got = again.state_dict()[key]
        assert got.dtype == value.dtype and torch.equal(got, value), key


def test_floats_of_every_pattern_come_back():
    network = nn.Sequential(nn.Linear(4, 16, bias=False))
    patterns = np.array(
        [0, 1 << 31, 1, 0x7F7FFFFF, 0x00800000, 0x80000001, 0x7F800000, 0xFF800000] * 8, dtype=np.uint32
    )
    with torch.no_grad():
        network[0].weight.copy_(torch.from_numpy(patterns.view(np.float32)).view(16, 4))
    again = decode(encode(network, network), nn.Sequential(nn.Linear(4, 16, bias=False)))
    assert np.array_equal(again[0].weight.detach().numpy().view(np.uint32).ravel(), patterns)


def test_checksum_is_at_the_end_little_endian():
    data = body()
    assert struct.unpack("<I", data[-4:])[0] == zlib.crc32(data[:-4])
    assert read_contents(data).size_bytes == len(data)
