"""BCCD: from small files of pictures drawn here."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cortado.boxes.anchors import Anchors
from cortado.errors import BadTask
from cortado.nets.ssd_mobilenet import ssdlite_mobilenet_v1
from cortado.task.measure import mean_score
from cortado.tasks import bccd
from cortado.tasks.catalog import built_in

COUNTS = {"train": 5, "val": 3, "test": 2}


def jpeg(shade, width=640):
    picture = np.full((480, width, 3), (shade, 20, 200), np.uint8)
    picture[100:200, 40:240] = 255
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def arrays(count, start, width=640):
    bodies = [jpeg(7 * (start + number), width) for number in range(count)]
    rows = [np.array([[40, 100, 240, 200, 1]] * (number % 3), np.uint16).reshape(-1, 5) for number in range(count)]
    return {
        "body": np.frombuffer(b"".join(bodies), np.uint8), "ends": np.cumsum([len(one) for one in bodies]),
        "boxes": np.concatenate(rows), "box_ends": np.cumsum([len(one) for one in rows]),
    }  # fmt: skip


def write(data_folder, **changed):
    (data_folder / "detection").mkdir(exist_ok=True)
    for start, (part, count) in enumerate(COUNTS.items()):
        np.savez(data_folder / "detection" / f"bccd_{part}.npz", **{**arrays(count, 10 * start), **changed})


def test_pictures_are_halved_together_with_their_boxes(data_folder):
    write(data_folder)
    task = built_in("bccd", seed=3)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [5, 3, 2]
    inputs, targets = next(task.validation.batches(8))
    assert inputs.shape == (3, 3, 240, 320) and targets.shape == (3, 64, 5)
    assert (targets[..., 4] >= 0).sum(1).tolist() == [0, 1, 2] and targets[1, 0].tolist() == [20, 50, 120, 100, 1]
    bright = (inputs[1].mean(0) > 0.9).nonzero()
    assert [*bright.amin(0).tolist(), *(bright.amax(0) + 1).tolist()] == [50, 20, 100, 120]
    assert float(inputs.min()) >= -1 and (task.metric.name, task.metric.unit, task.seed) == ("mAP", "%", 3)


def test_training_pictures_vary_and_others_do_not(data_folder):
    write(data_folder)
    task = bccd.task()
    first, second = (next(task.train.batches(5, task.generator(seed))) for seed in (0, 1))
    assert first[0].shape == (5, 3, 240, 320) and not torch.equal(first[0], second[0])
    fixed = bccd.task(augment=False)
    assert not fixed.train.varies and task.train.varies


def test_a_detector_is_scored_on_it(data_folder):
    write(data_folder)
    task, network = bccd.task(score="mAP50"), ssdlite_mobilenet_v1().eval()
    assert 0 <= mean_score(network, task.test, task.metric) <= 100 and task.metric.name == "mAP at IoU 0.5"
    other = bccd.task(anchors=Anchors((8, 16, 32), ((20.0,),) * 3))
    with pytest.raises(BadTask, match="at 5820 places, and its anchors are 4710"):
        mean_score(network, other.test, other.metric)


def test_where_the_files_must_be_is_in_the_message(data_folder):
    with pytest.raises(BadTask, match="bccd needs the file bccd_train.npz. Looked in .*detection"):
        bccd.task()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (arrays(5, 0, 320), "must be 640 x 480 RGB, got 320 x 480 RGB"),
        ({"ends": np.array([9, 12])}, "cannot be read as pictures with boxes"),
        ({"box_ends": np.array([0, 1])}, "needs the boxes of each picture, got 5 pictures and 2"),
        ({"boxes": np.array([[40, 100, 20, 200, 1]] * 4)}, "has no area"),
        ({"boxes": np.array([[40, 100, 240, 200, 3]] * 4)}, r"class that is not in 0\.\.2"),
    ],
)
def test_broken_files_are_refused(data_folder, changed, words):
    write(data_folder, **changed)
    with pytest.raises(BadTask, match=words):
        bccd.task()


def test_another_score_is_refused(data_folder):
    with pytest.raises(BadTask, match="must be one of mAP, mAP50"):
        bccd.task(score="accuracy")
