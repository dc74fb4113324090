"""SSD and SSDLite: shapes, order, counts, and the published sizes of their heads."""

import numpy as np
import pytest
import torch
from torch import nn

from cortado.boxes.anchors import Anchors
from cortado.errors import BadNetwork
from cortado.nets.backbone import Backbone, FeatureStages, level_shapes, picture_for
from cortado.nets.catalog import by_name
from cortado.nets.extra_levels import ExtraLevels
from cortado.nets.mobilenet_folded import mobilenet_v2_folded
from cortado.nets.ssd import Ssd
from cortado.network.profile.profile import profile


def counted(network):
    return sum(one.numel() for one in network.parameters())


def macs(network, picture):
    return profile(network, picture).total("multiply_adds").value


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("ssdlite_mobilenet_v1", {}, 240_280),
        ("ssd_mobilenet_v1", {}, 390_168),
        ("ssdlite_mobilenet_v1", {"width": 0.75}, 1_897_944),
        ("ssdlite_mobilenet_v2", {}, 2_304_728),
    ],
)
def test_networks_of_the_catalog_have_their_parameters(name, options, parameters):
    with torch.device("meta"):
        assert counted(by_name(name, **options)) == parameters


def test_outputs_are_in_the_order_of_the_anchors():
    """One place of one map is made to answer, and the anchor at that index has its centre there."""
    network = by_name("ssdlite_mobilenet_v1").eval()
    grid = network.grid(64, 96)
    assert grid.shapes == ((8, 12), (4, 6), (2, 3))
    spots = {}

    class Spot(nn.Module):
        def forward(self, pictures):
            return [torch.zeros(1, 1, *shape).index_put_((torch.tensor(0), torch.tensor(0), torch.tensor(1), torch.tensor(2)), torch.tensor(1.0)) for shape in grid.shapes]  # fmt: skip

    network.backbone = Spot()
    for heads, numbers in ((network.classes, 4), (network.offsets, 4)):
        for level, count in enumerate(network.anchors.counts):
            heads[level] = nn.Conv2d(1, count * numbers, 1, bias=False)
            nn.init.ones_(heads[level].weight)
    logits, offsets = network(torch.zeros(1, 3, 64, 96))
    assert logits.shape == (1, grid.places, 4) and offsets.shape == (1, grid.places, 4)
    lit = logits[0].amax(1) > 0
    assert torch.equal(lit, offsets[0].amax(1) > 0)
    spots = grid.boxes[lit][:, :2]
    wanted = [(2.5 * stride, 1.5 * stride) for stride, count in zip((8, 16, 32), network.anchors.counts, strict=True) for _ in range(count)]  # fmt: skip
    assert [tuple(spot) for spot in spots.tolist()] == wanted


@pytest.mark.parametrize("lite", [True, False])
def test_any_batch_runs_and_is_traced(lite):
    network = by_name("ssdlite_mobilenet_v1", lite=lite).eval()
    pictures = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    traced = torch.export.export(network, (pictures,), dynamic_shapes=(batch,)).module()
    for count in (1, 2):
        for one, other in zip(traced(pictures[:count]), network(pictures[:count]), strict=True):
            assert torch.equal(one, other)


def test_a_detector_is_loaded_from_its_weights(tmp_path):
    first = by_name("ssd_mobilenet_v1", classes=2)
    np.savez(tmp_path / "all.npz", **{name: value.half().numpy() for name, value in first.state_dict().items()})
    again = by_name("ssd_mobilenet_v1", classes=2, weights=tmp_path / "all.npz")
    for name, value in again.state_dict().items():
        assert torch.equal(value.float(), first.state_dict()[name].half().float())
    with pytest.raises(BadNetwork, match="does not fit"):
        by_name("ssd_mobilenet_v1", classes=3, weights=tmp_path / "all.npz")


def test_anchors_need_as_many_levels_as_the_backbone_has():
    with pytest.raises(BadNetwork, match="1 levels and the anchors 3"):
        Ssd(FeatureStages([nn.Conv2d(3, 4, 3)]), classes=2)


@pytest.mark.parametrize(("lite", "millions", "billions"), [(True, 2.1, 0.35 / 2), (False, 14.8, 1.25)])
def test_heads_on_mobilenet_v2_have_the_published_size(lite, millions, billions):
    """Table 5 of Sandler et al., 2018: 80 classes, 320 x 320 pixels; what comes on top of the backbone.

    The 0.35 billion multiply-adds of SSDLite are twice those that are counted here, the 1.25 billion of SSD are not.
    """
    anchors = Anchors((16, 32, 64, 107, 160, 320), ((60.0,), *[(100.0, 150.0)] * 5), (1.0, 2.0, 0.5))
    with torch.device("meta"):
        backbone = Backbone(mobilenet_v2_folded(), ["features.15.body.0", "features.19"])
        alone = counted(backbone)
        network = Ssd(ExtraLevels(backbone, lite=lite), 80, anchors, lite)
    shapes = level_shapes(network.backbone, picture_for(network, 320, 320))
    assert shapes == [(576, 20, 20), (1280, 10, 10), (512, 5, 5), (256, 3, 3), (256, 2, 2), (128, 1, 1)]
    assert (counted(network) - alone) / 1e6 == pytest.approx(millions, abs=0.05)
    picture = picture_for(network, 320, 320)
    on_top = (macs(network, picture) - macs(backbone, picture)) / 1e9
    assert on_top == pytest.approx(billions, rel=0.05)
