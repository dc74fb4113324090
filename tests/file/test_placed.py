"""Placed parts in the file: bit for bit, shared ones shared, few bytes, and damage is noticed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork
from cortado.file.artifact import decode, encode, save
from cortado.file.contents import read_contents
from cortado.file.inspection import inspect
from cortado.file.layout import laid_out
from cortado.file.placed import ACTIVATIONS, Placed, parts_in_places, put_quantizers, read_placed, write_placed
from cortado.file.wire import Cursor
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import ActivationQuantizer, put_quantizer, quantizer_at, sites
from tests.file.cut_nets import example_of, plain_net, without_blocks


def rounded(original: nn.Module) -> nn.Module:
    """The inputs of all convolutions rounded, those of the second stage on one grid, and the outputs of two norms."""
    made, shared = copy.deepcopy(original), Affine(0.25, 3, 5)
    for number, (path, layer) in enumerate(list(made.named_modules())):
        if isinstance(layer, nn.Conv2d):
            put_quantizer(layer, "input", shared if "layer2" in path else Affine(0.01 * (number + 1), 128, 8))
        if isinstance(layer, nn.BatchNorm2d) and "layer1" in path:
            put_quantizer(layer, "output", Affine(0.05, 0, 4))
    return made


def test_rounded_network_comes_back_bit_for_bit():
    original = plain_net("residual")
    small = rounded(original)
    body = encode(small, original)
    again = decode(body, original)
    assert body[4] == 4
    assert list(sites(again)) == list(sites(small))
    example = example_of("residual")
    assert torch.equal(again(example), small(example)) and not torch.equal(again(example), original(example))
    assert encode(again, original) == body
    shared = [quantizer for (path, _), quantizer in sites(again).items() if "layer2" in path]
    assert len(shared) > 1 and all(quantizer is shared[0] for quantizer in shared)


def test_roundings_beside_removed_blocks():
    original = plain_net("residual")
    small = rounded(without_blocks("residual", "layer2.1"))
    again = decode(encode(small, original), original)
    example = example_of("residual")
    assert torch.equal(again(example), small(example)) and list(sites(again)) == list(sites(small))


def test_each_rounding_takes_a_few_bytes_and_they_are_counted(tmp_path):
    original = plain_net("residual")
    small = rounded(original)
    size_bytes = save(small, tmp_path / "net.cortado", original)
    count = len(set(sites(small).values()))
    assert size_bytes - len(encode(original, original)) < 8 * count + 40
    shown = inspect(tmp_path / "net.cortado", original)
    ((words, used),) = shown.besides
    assert words == f"{len(sites(small))} activations rounded: {count} affine" and words in shown.text()
    assert used == len(write_placed(read_contents((tmp_path / "net.cortado").read_bytes()).quantizers, ACTIVATIONS))
    assert sum(piece.size_bytes for piece in shown.pieces) + used + shown.overhead_bytes == size_bytes


class Halved(ActivationQuantizer):
    """A user's own: halves what passes, so many times."""

    facts = ("times",)

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, values: Tensor) -> Tensor:
        return values / 2**self.times

    @classmethod
    def from_parts(cls, shape, spec, parts):
        return cls(spec["times"])

    def bits(self) -> int:
        return 32


def test_a_users_own_rounding_is_stored_and_asked_for():
    original = plain_net("residual")
    small = copy.deepcopy(original)
    put_quantizer(small.conv1, "input", Halved(3))
    put_quantizer(small.linear, "output", Halved(1))
    put_quantizer(small.bn1, "output", Affine(0.5, 0, 3))
    body = encode(small, original)
    again = decode(body, original, [Halved])
    assert torch.equal(again(example_of("residual")), small(example_of("residual")))
    assert quantizer_at(again.conv1, "input").times == 3
    with pytest.raises(BadFile, match="rounds activations in a way that is not known here .* forms="):
        decode(body, original)


def test_quantizer_of_an_unknown_layer_is_refused():
    original = plain_net("residual")
    small = copy.deepcopy(original)
    small.extra = nn.ReLU()
    put_quantizer(small.extra, "input", Affine(1.0, 0, 8))
    with pytest.raises(BadNetwork, match="an activation of extra is rounded, which the original network lacks"):
        encode(small, original)


def test_original_network_with_roundings_is_refused():
    small = rounded(plain_net("residual"))
    with pytest.raises(BadNetwork, match="of the original network rounds an activation. Pass the network as it came"):
        encode(small, small)


def grids(*places: tuple[int, int], serves: tuple[int, ...]) -> Placed:
    """Activations on two grids."""
    made = parts_in_places([((1, 0), Affine(0.5, 0, 8)), ((1, 1), Affine(0.25, 9, 4))])
    return Placed(places, serves, made.parts)


GOOD = grids((1, 0), (1, 1), (4, 0), serves=(0, 1, 0))


def test_what_contradicts_itself_is_refused():
    body = write_placed(GOOD, ACTIVATIONS)
    assert read_placed(Cursor(body), ACTIVATIONS).places == GOOD.places
    bad = (
        grids((4, 0), (1, 0), serves=(0, 1)),
        grids((1, 0), (1, 0), serves=(0, 1)),
        grids((1, 0), (4, 0), serves=(0, 0)),
        grids((1, 0), serves=(0,)),
    )
    for one in bad:
        with pytest.raises(BadFile):
            read_placed(Cursor(write_placed(one, ACTIVATIONS)), ACTIVATIONS)


def test_any_byte_cut_off_or_changed_is_an_error_or_other_roundings():
    body = write_placed(GOOD, ACTIVATIONS)
    for end in range(len(body)):
        with pytest.raises(BadFile):
            read_placed(Cursor(body[:end]), ACTIVATIONS)
    for place in range(len(body)):
        for flip in (1, 128, 255):
            changed = body[:place] + bytes([body[place] ^ flip]) + body[place + 1 :]
            try:
                read_placed(Cursor(changed), ACTIVATIONS)
            except BadFile:
                continue


def test_file_that_rounds_what_is_not_there_is_refused():
    original = plain_net("residual")
    small = copy.deepcopy(original)
    put_quantizer(small.linear, "input", Affine(1.0, 0, 8))
    order = [path for path, _ in original.named_modules()]
    body = encode(small, original)
    for wrong, says in ((len(order) + 5, "which is not there"), (order.index("layer1"), "cannot have a quantizer")):
        again = decode(body, original)
        with pytest.raises(BadFile, match=says):
            put_quantizers(laid_out(again, Placed()).module, parts_in_places([((wrong, 0), Affine(1.0, 0, 8))]))
