"""CamVid: from small files of frames drawn here."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cortado.errors import BadTask
from cortado.tasks import camvid

COUNTS = {"train": 17, "val": 7, "test": 9}


def picture(array, kind):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def arrays(count, side=480):
    frames, masks = [], []
    for number in range(count):
        frame = np.zeros((360, side, 3), np.uint8)
        frame[:] = (number, 100 + number, 200)
        frames.append(picture(frame, "WEBP"))
        masks.append(picture(np.full((360, 480), number % 12, np.uint8), "PNG"))
    made = {}
    for name, bodies in (("frame", frames), ("mask", masks)):
        made[f"{name}s"] = np.frombuffer(b"".join(bodies), np.uint8)
        made[f"{name}_ends"] = np.cumsum([len(body) for body in bodies]).astype("uint32")
    return made


def write(data_folder, **changed):
    (data_folder / "camvid").mkdir(exist_ok=True)
    for part, count in COUNTS.items():
        np.savez(data_folder / "camvid" / f"camvid_{part}.npz", **{**arrays(count), **changed})


def test_parts_are_every_so_many_th_frame_with_their_masks(data_folder):
    write(data_folder)
    task = camvid.task(seed=3)
    assert [len(part) for part in (task.train, task.calibration, task.validation, task.test)] == [17, 3, 2, 3]
    inputs, targets = next(task.test.batches(8))
    assert inputs.shape == (3, 3, 360, 480) and inputs.dtype == torch.float32
    assert targets.dtype == torch.int64 and targets[:, 0, 0].tolist() == [0, 4, 8]
    assert (task.metric.unit, task.seed) == ("%", 3)


def test_pixels_go_in_blue_first_as_the_published_network_takes_them(data_folder):
    write(data_folder)
    inputs = camvid.task().example
    wanted = [(200 - 108.380) / 77.641 / 255, (100 - 106.603) / 78.894 / 255, (0 - 103.648) / 77.789 / 255]
    assert torch.allclose(inputs[0, :, 5, 5], torch.tensor(wanted), atol=1e-7)


def test_void_is_left_out_of_the_loss():
    outputs = torch.randn(1, 12, 2, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[[1, 11], [11, 11]]])
    assert camvid.loss(outputs, targets) == pytest.approx(float(-outputs.log_softmax(1)[0, 1, 0, 0]), rel=1e-6)


def test_where_the_files_must_lie_is_told(data_folder):
    with pytest.raises(BadTask, match="camvid needs the file camvid_train.npz. Looked in .*camvid"):
        camvid.task()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (arrays(17, 64), "must be 480 x 360 RGB, got 64 x 360 RGB"),
        ({"masks": np.zeros(9000, np.uint8)}, "cannot be decoded"),
        ({"mask_ends": np.arange(3)}, "needs one mask per frame, got 17 and 3"),
        ({"frame_ends": np.array(["a"])}, "cannot be read as frames"),
    ],
)
def test_broken_files_are_told(data_folder, changed, says):
    write(data_folder, **changed)
    with pytest.raises(BadTask, match=says):
        next(camvid.task().train.batches(2))
