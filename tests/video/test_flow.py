"""Flow: found where pictures were moved by a known way, and refused in words."""

import sys

import pytest
import torch

from cortado.errors import BadTask, BadValue, MissingPackage
from cortado.video.flow import PRESETS, Dis, flow_between
from tests.video.moving import Steady, shifted, smooth_pictures


@pytest.mark.parametrize("preset", PRESETS)
def test_flow_points_back_to_where_a_picture_was(preset):
    earlier = smooth_pictures(2, 96)
    later = torch.cat([shifted(earlier[:1], 5, 3), shifted(earlier[1:], -2, 4)])
    found = Dis(preset)(later, earlier)
    assert found.shape == (2, 2, 96, 96) and found.dtype == torch.float32
    for flow, wanted in zip(found[..., 16:-16, 16:-16], [(-5, -3), (2, -4)], strict=True):
        torch.testing.assert_close(flow.flatten(1).median(1).values, torch.tensor(wanted).float(), atol=0.2, rtol=0)


def test_floats_of_the_same_pictures_have_the_same_flow():
    earlier, later = smooth_pictures(1), shifted(smooth_pictures(1), 2, 0)
    assert torch.equal(Dis()(later.float() + 0.3, earlier.double() - 0.3), Dis()(later, earlier))


def test_wrong_presets_and_frames_are_refused_in_words():
    with pytest.raises(BadValue, match="preset must be one of ultrafast, fast, medium, got 'slow'"):
        Dis("slow")
    pictures = smooth_pictures(2)
    for later, earlier in ((pictures, pictures[:1]), (pictures[:, :1], pictures[:, :1]), (pictures[..., :8],) * 2):
        with pytest.raises(BadValue, match="two batches of frames"):
            Dis()(later, earlier)


def test_missing_opencv_is_told_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackage, match=r"pip install -e '\.\[video\]'"):
        Dis()(smooth_pictures(1), smooth_pictures(1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda later, earlier: later,
        lambda later, earlier: None,
        lambda later, earlier: later[:, :2] / 0.0,
        lambda later, earlier: {}["flow"],
    ],
)
def test_functions_that_are_no_flow_are_refused_in_words(wrong):
    with pytest.raises(BadTask, match="video: the flow"):
        flow_between(wrong, smooth_pictures(1), smooth_pictures(1))
    assert flow_between(Steady(1, 0), smooth_pictures(1), smooth_pictures(1)).unique().tolist() == [-1, 0]
