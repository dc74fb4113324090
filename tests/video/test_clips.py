"""Clips: frames with what came before, as data to learn from."""

import pytest
import torch

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.video.clips import clips
from tests.video.moving import Steady, smooth_pictures, video_of

VIDEO = video_of(smooth_pictures(1, 32)[0], 12, 2, -1)


def data(frames=VIDEO):
    return Data(frames, prepare=lambda pictures: pictures.float() / 255)


@pytest.mark.parametrize("step", [1, 3])
def test_each_frame_comes_with_the_one_before_and_the_flow_to_it(step):
    made = clips(data(), Steady(2 * step, -step), step)
    assert len(made) == 12 - step
    (frames, given), *rest = made.batches(9)
    assert torch.equal(frames, VIDEO[step : step + 9] / 255) and torch.equal(given["earlier"], VIDEO[:9] / 255)
    assert given["flow"].dtype == torch.float16 and given["flow"].shape == (9, 2, 32, 32)
    assert given["flow"][:, 0].unique().tolist() == [-2 * step] and given["flow"][:, 1].unique().tolist() == [step]
    # Everything moves alike, so only what came in over two edges was not visible.
    assert given["visible"].float().mean((1, 2)).tolist() == pytest.approx([(32 - 2 * step) * (32 - step) / 32**2] * 9)
    assert "before" not in given and sum(len(inputs) for inputs, _ in rest) == 12 - step - 9


def test_longer_clips_have_the_frames_before_in_order():
    made = clips(data(), Steady(4, -2), step=2, length=4)
    ((frames, given),) = made.batches(99)
    assert (
        len(frames) == 6 and torch.equal(frames, VIDEO[6:] / 255) and torch.equal(given["earlier"], VIDEO[4:10] / 255)
    )
    assert torch.equal(given["before"][:, 0], VIDEO[:6] / 255) and torch.equal(given["before"][:, 1], VIDEO[2:8] / 255)


def test_flow_is_computed_once():
    calls = []

    def counted(later, earlier):
        calls.append(len(later))
        return Steady(0, 0)(later, earlier)

    made = clips(data(), counted)
    for _ in range(3):
        assert sum(len(inputs) for inputs, _ in made.batches(4, torch.Generator().manual_seed(0))) == 11
    assert calls == [8, 3]


def test_too_few_frames_and_other_data_are_refused_in_words():
    with pytest.raises(BadTask, match="clips of 2 frames, 1 apart, need at least 2 frames.*got 1 frames"):
        clips(data(VIDEO[:1]), Steady(0, 0))
    for step, length in ((0, 2), (1, 1), (4, 4)):
        with pytest.raises(BadTask, match=f"clips of {length} frames, {step} apart"):
            clips(data(), Steady(0, 0), step, length)
    with pytest.raises(BadTask, match="raw pictures"):
        clips(Data(torch.zeros(4, 7)), Steady(0, 0))
