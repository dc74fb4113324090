"""What a cut changed besides tensors is in the file: real cuts and smaller networks come back as they were."""

import copy
import json

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, WrongNetwork
from cortado.file.accounting import accounts, layer_rows
from cortado.file.artifact import decode, encode, save
from cortado.file.contents import HAS_BLOCKS, HAS_EDITS, read_contents
from cortado.file.edits import Edits, read_edits, write_edits
from cortado.file.inspection import inspect
from cortado.file.placed import BLOCKS, write_placed
from cortado.file.slots import AttributeSlot, slots_of
from cortado.file.wire import Cursor
from cortado.network.coupling.cut import cut
from cortado.network.coupling.find import find_groups
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.task.task import Data, Task
from tests.file.cut_nets import ALL_NETS, Attention, cut_net, example_of, plain_net, without_blocks
from tests.fresh import fresh

KEPT_NUMBERS = {"attention", "option_a", "multiplied", "group_norm", "bare_group_norm", "split", "attention_layer"}
"""Networks whose cuts change numbers that shapes do not tell, at least at some share."""


def numbers_of(network):
    """Every whole number of every module."""
    return {
        (path, slot): layer.__dict__[slot.name] for path, layer in network.named_modules() for slot in slots_of(layer)
    }


def states_equal(one, other):
    mine, theirs = dict(one.named_buffers()) | one.state_dict(), dict(other.named_buffers()) | other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("share", [0.25, 0.4])
@pytest.mark.parametrize("name", ALL_NETS)
def test_cut_network_comes_back_bit_for_bit(name, share):
    small, original = cut_net(name, share), plain_net(name)
    body = encode(small, original)
    again = decode(body, original)
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in original.parameters())
    assert states_equal(again, small)
    assert repr(again) == repr(small)
    assert numbers_of(again) == numbers_of(small)
    assert torch.equal(again(example_of(name)), small(example_of(name)))
    assert encode(again, original) == body


@pytest.mark.parametrize("name", sorted(KEPT_NUMBERS))
def test_numbers_that_shapes_do_not_tell_are_kept(name):
    small, original = cut_net(name, 0.25), plain_net(name)
    edits = read_contents(encode(small, original)).edits
    changed = [key for key, value in numbers_of(small).items() if value != numbers_of(original)[key]]
    assert bool(edits.numbers) == (name not in ("multiplied", "group_norm"))
    assert len(edits.numbers) < len(changed)


def test_files_are_of_the_fourth_version_and_say_which_sections_they_have():
    original, small = plain_net("depthwise"), cut_net("depthwise")
    assert encode(original, original)[4] == encode(small, original)[4] == 4
    assert encode(original, original)[13] == 0 and encode(cut_net("attention"), plain_net("attention"))[13] == HAS_EDITS
    assert encode(without_blocks("residual", "layer1"), plain_net("residual"))[13] == HAS_BLOCKS + HAS_EDITS


def test_all_files_open_in_another_process(tmp_path):
    wanted = {}
    for name in ALL_NETS:
        save(cut_net(name), tmp_path / f"{name}.cortado", plain_net(name))
        wanted[name] = cut_net(name)(example_of(name))
    child = fresh(CHILD, str(tmp_path))
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == sorted(wanted)
    found = torch.load(tmp_path / "outputs.pt")
    assert all(torch.equal(found[name], outputs) for name, outputs in wanted.items())


CHILD = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from cortado.file.artifact import load
from tests.file.cut_nets import example_of, plain_net
folder, found = Path(sys.argv[1]), {}
for path in sorted(folder.glob("*.cortado")):
    found[path.stem] = load(path, lambda: plain_net(path.stem))(example_of(path.stem))
torch.save(found, folder / "outputs.pt")
print(json.dumps(sorted(found)))
"""


@pytest.mark.parametrize("paths", [("layer2.1",), ("layer1.0", "layer1.1", "layer3.1"), ("layer1",)])
def test_removed_blocks_have_no_records(paths):
    small, original = without_blocks("residual", *paths), plain_net("residual")
    body = encode(small, original)
    again = decode(body, original)
    assert len(read_contents(body).records) == len(small.state_dict()) < len(original.state_dict())
    assert all(isinstance(again.get_submodule(path), Bypass) for path in paths)
    example = example_of("residual")
    assert torch.equal(again(example), small(example))
    assert not torch.equal(again(example), original(example))
    assert encode(again, original) == body


def test_bytes_of_edits_are_counted(tmp_path):
    original, small = plain_net("residual"), without_blocks("residual", "layer2.1", "layer3.1")
    size_bytes = save(small, tmp_path / "net.cortado", original)
    for known in (None, original):
        shown = inspect(tmp_path / "net.cortado", known)
        (blocks, for_blocks), (check, for_check) = shown.besides
        assert (blocks, check) == ("2 blocks in modules' places: 2 bypass", "check of the blocks")
        contents = read_contents((tmp_path / "net.cortado").read_bytes())
        assert for_blocks == len(write_placed(contents.blocks, BLOCKS)) < 20
        assert for_check == len(write_edits(contents.edits)) == 4
        pieces = sum(piece.size_bytes for piece in shown.pieces)
        assert pieces + shown.overhead_bytes + for_blocks + for_check == size_bytes
        assert blocks in shown.text() and check in shown.text()
    rows = {row.path: row for row in layer_rows(small, original)}
    assert list(rows) == list(original.state_dict())
    assert rows["layer2.1.conv1.weight"].form == "removed" and rows["layer2.1.conv1.weight"].size_bytes == 0
    assert rows["layer2.1.conv1.weight"].kept == 0
    assert sum(row.original_entries for row in rows.values()) == sum(v.numel() for v in original.state_dict().values())
    assert accounts(small, original)[1] == ()


def test_blocks_may_be_called_with_more_than_their_input():
    small, original = without_blocks("attention", "blocks.1"), plain_net("attention")
    again = decode(encode(small, original), original)
    assert torch.equal(again(example_of("attention")), small(example_of("attention")))


def test_removal_and_cut_and_forms_go_together():
    original, small = plain_net("attention"), cut_net("attention")
    small.blocks[1] = nn.Identity()
    weight = small.head.weight.detach()
    attach(small.head, "weight", Dense(weight).select(weight > 0))
    small.blocks[1] = Bypass()
    again = decode(encode(small, original), original)
    assert torch.equal(again(example_of("attention")), small(example_of("attention")))


def test_tied_tensor_stays_while_one_of_its_places_does():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 4)
            self.two.weight = self.one[0].weight

        def forward(self, activation):
            return self.two(self.one(activation))

    original, small = Tied(), Tied()
    small.one = nn.Identity()
    again = decode(encode(small, original), original)
    example = torch.randn(2, 4)
    assert torch.equal(again(example), small(example))
    rows = {row.path: row for row in layer_rows(small, original)}
    assert [row.form for row in rows.values()].count("removed") == 1


def test_module_in_two_places_goes_from_both_or_is_refused():
    block = nn.Linear(4, 4)
    original = nn.Sequential(block, block, nn.Linear(4, 2))
    both = nn.Sequential(nn.Identity(), nn.Identity(), original[2])
    again = decode(encode(both, original), original)
    assert isinstance(again[0], Bypass) and again[1] is again[0]
    for half in (nn.Sequential(nn.Identity(), block, original[2]), nn.Sequential(block, nn.Identity(), original[2])):
        with pytest.raises(BadNetwork, match="replaced in one place and still stands in another"):
            encode(half, original)


def test_network_of_which_nothing_would_be_left_is_refused():
    original = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(BadNetwork, match="0 is removed and had all tensors of the network"):
        encode(nn.Sequential(nn.Identity(), nn.ReLU()), original)


def test_tensors_that_the_original_network_lacks_are_refused():
    original = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
    folded = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Identity())
    with pytest.raises(BadNetwork, match="0 has bias, which the original network has not"):
        encode(folded, original)
    more = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
    more.extra = nn.Linear(2, 2)
    with pytest.raises(BadNetwork, match="extra has bias, which the original network has not"):
        encode(more, original)


@pytest.mark.parametrize("value", [0, -3, 400, "seven", None])
def test_numbers_that_no_cut_makes_are_refused(value):
    original, small = plain_net("group_norm"), cut_net("group_norm", 0.25)
    small[1].num_groups = value
    with pytest.raises(BadNetwork, match=r"file: 1.num_groups is 4 in the original network, got .*not this"):
        encode(small, original)


def test_counters_of_a_network_that_was_not_cut_are_not_edits():
    original, small = plain_net("residual"), plain_net("residual")
    small.calls = original.calls = 0
    small.calls = 17
    assert encode(small, original) == encode(original, original)


class Counting(nn.Module):
    """Attention that counts its calls, keeps the lengths it has seen, and the largest of them since it was last told."""

    def __init__(self):
        super().__init__()
        self.attention, self.calls, self.seen, self.zenith = Attention(16, 4), 0, [], -1

    def forward(self, activation):
        self.calls, self.zenith = self.calls + 1, max(self.zenith, activation.shape[1])
        self.seen.append(activation.shape[1])
        return self.attention(activation)


def test_what_a_forward_counts_is_no_edit_of_a_cut():
    torch.manual_seed(0)
    original, example = Counting().eval(), torch.randn(2, 5, 16)
    small = copy.deepcopy(original)
    groups = find_groups(small, example)
    cut(small, groups, {group: torch.arange(2) for group in groups.free if group.count == 4})
    assert small.attention.num_heads == 2
    body = encode(small, original)
    for network in (small, small, original):
        network(example)
    assert small.calls > 1 and small.seen != original.seen
    assert encode(small, original) == body
    for maker in (original, Counting):
        again = decode(body, maker)
        assert again.attention.num_heads == 2 and torch.equal(again(example), small(example))
        again(example)
        assert encode(again, original) == body


@pytest.mark.parametrize("method", ["prune/channels keep=0.5", "share/kmeans bits=4 | prune/channels keep=0.5"])
def test_recipes_cut_a_network_that_counts_what_it_trained(method):
    class Trained(nn.Sequential):
        steps = 0

        def forward(self, activation):
            self.steps += 1
            return super().forward(activation)

    original = Trained(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    inputs = torch.randn(64, 6)
    original(inputs)
    data = Data(inputs, inputs.argmax(1) % 3)
    small, _ = compress(original, Task(data, data, data, trial=True), method)
    again = decode(encode(small, original), lambda: Trained(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)))
    assert small[0].out_features == 8 and torch.equal(again(inputs), small(inputs))


def test_edits_meant_for_another_network_are_noticed():
    """The fingerprint has the tensors; what has none, such as a dropout, only the check of the edits sees."""
    original, small = plain_net("split"), cut_net("split")
    other = plain_net("split")
    other.calls = 3
    with pytest.raises(WrongNetwork, match="what it edits is not there"):
        decode(encode(small, original), other)


def test_edits_come_back_from_their_bytes():
    edits = Edits((0, 5), ((0, 1, 7), (0, 4, 0), (300, 0, 70000)), b"ab")
    again = read_edits(Cursor(write_edits(edits)))
    assert (again.loose, again.numbers, again.check) == (edits.loose, edits.numbers, b"ab")
    assert again.size_bytes == len(write_edits(edits))


def test_slots_are_whole_numbers_alone_or_in_lists_by_name():
    layer = nn.Module()
    layer.zebra, layer.flag, layer.apes, layer.mixed, layer.rate = 3, True, [1, 2], (1, 2.0), 0.5
    assert slots_of(layer) == [AttributeSlot("apes", 0), AttributeSlot("apes", 1), AttributeSlot("zebra")]
