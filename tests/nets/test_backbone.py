"""Backbone: the maps of a network's own modules."""

import copy
import gc

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.nets.backbone import Backbone, as_stages, level_shapes
from cortado.nets.extra_levels import ExtraLevels
from cortado.nets.mobilenet_folded import mobilenet_v1_folded
from cortado.nets.resnet import resnet_20

PATHS = ["layer1", "layer2.2", "layer3"]


def seeded(make):
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return make().eval()


@pytest.fixture
def pictures():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def hooked(network, pictures, paths):
    """The outputs of modules, by hooks."""
    seen = {}
    hooks = [
        network.get_submodule(path).register_forward_hook(lambda m, i, made, path=path: seen.__setitem__(path, made))
        for path in paths
    ]
    network(pictures)
    for hook in hooks:
        hook.remove()
    return [seen[path] for path in paths]


def test_levels_are_the_outputs_of_the_modules(pictures):
    network = seeded(resnet_20)
    backbone = Backbone(copy.deepcopy(network), PATHS)
    for found, wanted in zip(backbone(pictures), hooked(network, pictures, PATHS), strict=True):
        assert torch.equal(found, wanted)
    assert level_shapes(backbone, pictures) == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_what_runs_after_the_last_level_is_taken_out(pictures):
    whole = sum(p.numel() for p in resnet_20().parameters())
    backbone = Backbone(seeded(resnet_20), ["layer1", "layer2"])
    later = [name for name, _ in backbone.named_parameters() if "layer3" in name or "linear" in name]
    assert not later and sum(p.numel() for p in backbone.parameters()) < whole / 3
    assert [tuple(one.shape) for one in backbone(pictures)] == [(2, 16, 32, 32), (2, 32, 16, 16)]


def test_levels_come_in_the_order_of_their_paths(pictures):
    turned = Backbone(seeded(resnet_20), PATHS[::-1])
    assert [one.shape[1] for one in turned(pictures)] == [64, 32, 16]


def test_a_copy_has_maps_of_its_own(pictures):
    backbone = Backbone(seeded(resnet_20), PATHS)
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        other.network.conv1.weight.mul_(2)
    assert not torch.equal(other(pictures)[0], backbone(pictures)[0])
    assert other.kept is not backbone.kept


def test_no_map_is_kept_between_calls(pictures):
    backbone = Backbone(seeded(resnet_20), PATHS)
    backbone(pictures)
    gc.collect()
    assert not backbone.kept.maps


def test_a_backbone_can_be_exported(pictures):
    backbone = Backbone(seeded(resnet_20), PATHS)
    traced = torch.export.export(backbone, (pictures,)).module()
    assert all(torch.equal(a, b) for a, b in zip(traced(pictures), backbone(pictures), strict=True))


def test_stages_of_a_chain_are_its_levels():
    chain = seeded(lambda: mobilenet_v1_folded(width=0.25)).features
    pictures = torch.zeros(1, 3, 64, 64)
    found = as_stages(chain, [11, 23, 27])(pictures)
    wanted = hooked(chain, pictures, ["10", "22", "26"])
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert [one.shape[-1] for one in found] == [8, 4, 2]


@pytest.mark.parametrize("lite", [True, False])
def test_extra_levels_are_half_as_large_each(lite, pictures):
    longer = ExtraLevels(Backbone(seeded(resnet_20), ["layer3"]), (24, 16), lite).eval()
    assert level_shapes(longer, pictures) == [(64, 8, 8), (24, 4, 4), (16, 2, 2)]


class TwoPaths(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare, self.flat = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Flatten()

    def forward(self, pictures):
        return self.flat(self.used(pictures))


class Reused(nn.Module):
    """After the level, code that needs what a module would give."""

    def __init__(self):
        super().__init__()
        self.level, self.after = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def forward(self, pictures):
        made = self.level(pictures)
        return self.after(made).view(len(pictures), 5, -1).sum() + made.mean()


def test_what_later_code_cannot_do_without_stays():
    backbone = Backbone(Reused(), ["level"])
    assert isinstance(backbone.network.after, nn.Conv2d)
    assert backbone(torch.zeros(1, 3, 8, 8))[0].shape == (1, 4, 6, 6)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["missing"], "has no module 'missing'"),
        ([""], "has no module ''"),
        (["used", "spare"], "spare did not run"),
        (["flat"], "the output of flat is no map"),
    ],
)
def test_paths_that_are_no_levels_are_refused(paths, words):
    with pytest.raises(BadNetwork, match=words):
        Backbone(TwoPaths(), paths)


def test_a_backbone_that_gives_no_list_is_refused():
    with pytest.raises(BadNetwork, match="Wrap a network as Backbone"):
        level_shapes(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
