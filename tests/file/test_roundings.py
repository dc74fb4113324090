"""Roundings in the file: bit for bit, shared ones shared, few bytes, and damage is noticed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork
from cortado.file.artifact import decode, encode, read, save
from cortado.file.inspection import inspect
from cortado.file.roundings import Roundings, put_roundings, read_roundings, write_roundings
from cortado.file.wire import Cursor
from cortado.signals.affine import Affine
from cortado.signals.signal import Signal, put_signal, signal_at, sites
from tests.file.cut_nets import example_of, plain_net, without_blocks


def rounded(plain: nn.Module) -> nn.Module:
    """The inputs of all convolutions rounded, those of the second stage on one grid, and the outputs of two norms."""
    made, shared = copy.deepcopy(plain), Affine(0.25, 3, 5)
    for number, (path, layer) in enumerate(list(made.named_modules())):
        if isinstance(layer, nn.Conv2d):
            put_signal(layer, "input", shared if "layer2" in path else Affine(0.01 * (number + 1), 128, 8))
        if isinstance(layer, nn.BatchNorm2d) and "layer1" in path:
            put_signal(layer, "output", Affine(0.05, 0, 4))
    return made


def test_rounded_network_comes_back_bit_for_bit():
    plain = plain_net("residual")
    small = rounded(plain)
    body = encode(small, plain)
    again = decode(body, plain)
    assert body[4] == 3
    assert list(sites(again)) == list(sites(small))
    example = example_of("residual")
    assert torch.equal(again(example), small(example)) and not torch.equal(again(example), plain(example))
    assert encode(again, plain) == body
    shared = [signal for (path, _), signal in sites(again).items() if "layer2" in path]
    assert len(shared) > 1 and all(signal is shared[0] for signal in shared)


def test_roundings_beside_removed_blocks():
    plain = plain_net("residual")
    small = rounded(without_blocks("residual", "layer2.1"))
    again = decode(encode(small, plain), plain)
    example = example_of("residual")
    assert torch.equal(again(example), small(example)) and list(sites(again)) == list(sites(small))


def test_each_rounding_takes_a_few_bytes_and_they_are_counted(tmp_path):
    plain = plain_net("residual")
    small = rounded(plain)
    size_bytes = save(small, tmp_path / "net.cortado", plain)
    count = len(set(sites(small).values()))
    assert size_bytes - len(encode(plain, plain)) < 8 * count + 40
    shown = inspect(tmp_path / "net.cortado", plain)
    ((words, used),) = shown.besides
    assert words == f"{len(sites(small))} signals rounded: {count} affine" and words in shown.text()
    assert used == len(write_roundings(read((tmp_path / "net.cortado").read_bytes()).roundings))
    assert sum(piece.size_bytes for piece in shown.pieces) + used + shown.overhead_bytes == size_bytes


class Halved(Signal):
    """A user's own: halves what passes, so many times."""

    facts = ("times",)

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, values: Tensor) -> Tensor:
        return values / 2**self.times

    def spec(self) -> dict[str, int]:
        return {"times": self.times}

    def parts(self) -> dict[str, Tensor]:
        return {}

    @classmethod
    def from_parts(cls, spec: dict[str, int], parts: dict[str, Tensor]) -> "Halved":
        return cls(spec["times"])

    def bits(self) -> int:
        return 32


def test_a_users_own_rounding_is_stored_and_asked_for():
    plain = plain_net("residual")
    small = copy.deepcopy(plain)
    put_signal(small.conv1, "input", Halved(3))
    put_signal(small.linear, "output", Halved(1))
    put_signal(small.bn1, "output", Affine(0.5, 0, 3))
    body = encode(small, plain)
    again = decode(body, plain, [Halved])
    assert torch.equal(again(example_of("residual")), small(example_of("residual")))
    assert signal_at(again.conv1, "input").times == 3
    with pytest.raises(BadFile, match="rounds signals in a way that is not known here .* forms="):
        decode(body, plain)


def test_rounding_of_a_layer_that_the_plain_network_has_not_is_refused():
    plain = plain_net("residual")
    small = copy.deepcopy(plain)
    small.extra = nn.ReLU()
    put_signal(small.extra, "input", Affine(1.0, 0, 8))
    with pytest.raises(BadNetwork, match="a signal of extra is rounded, a layer that the plain network has not"):
        encode(small, plain)


def test_plain_network_with_roundings_is_refused():
    small = rounded(plain_net("residual"))
    with pytest.raises(BadNetwork, match="of the plain network rounds a signal. Pass the network as it came"):
        encode(small, small)


def good() -> Roundings:
    """Three signals on two grids."""
    return Roundings(((1, 0), (1, 1), (4, 0)), (0, 1, 0), (Affine(0.5, 0, 8), Affine(0.25, 9, 4)))


def test_what_contradicts_itself_is_refused():
    body = write_roundings(good())
    assert read_roundings(Cursor(body)).places == good().places
    bad = (
        Roundings(((4, 0), (1, 0)), (0, 1), good().signals),
        Roundings(((1, 0), (1, 0)), (0, 1), good().signals),
        Roundings(((1, 0), (4, 0)), (0, 0), good().signals),
        Roundings(((1, 0),), (0,), good().signals),
    )
    for one in bad:
        with pytest.raises(BadFile):
            read_roundings(Cursor(write_roundings(one)))


def test_any_byte_cut_off_or_changed_is_an_error_or_other_roundings():
    body = write_roundings(good())
    for end in range(len(body)):
        with pytest.raises(BadFile):
            read_roundings(Cursor(body[:end]))
    for place in range(len(body)):
        for flip in (1, 128, 255):
            changed = body[:place] + bytes([body[place] ^ flip]) + body[place + 1 :]
            try:
                read_roundings(Cursor(changed))
            except BadFile:
                continue


def test_file_that_rounds_what_is_not_there_is_refused():
    plain = plain_net("residual")
    small = copy.deepcopy(plain)
    put_signal(small.linear, "input", Affine(1.0, 0, 8))
    order = [path for path, _ in plain.named_modules()]
    body = encode(small, plain)
    for wrong, says in ((len(order) + 5, "which is not there"), (order.index("layer1"), "can have no rounding")):
        roundings = Roundings(((wrong, 0),), (0,), (Affine(1.0, 0, 8),))
        with pytest.raises(BadFile, match=says):
            put_roundings(decode(body, plain), order, roundings)
