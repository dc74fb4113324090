"""Networks with named inputs, several outputs, and boxes as targets are finetuned, with and without a teacher."""

import pytest
import torch

from cortado.engine.compress import compress
from tests.extension import grid_detector, test_transformers
from tests.runtimes import test_several


def detector():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return grid_detector.Detector(), grid_detector.task()


MADE = {
    "several, named": lambda: (test_several.network(True), test_several.task(True)),
    "several, in order": lambda: (test_several.network(False), test_several.task(False)),
    "detector": detector,
    "classifier": lambda: test_transformers.made("classifier"),
    "encoder": lambda: test_transformers.made("encoder"),
    "decoder": lambda: test_transformers.made("decoder"),
}


@pytest.mark.parametrize("teacher", ["", " teacher=0.5"])
@pytest.mark.parametrize("name", list(MADE))
def test_training_takes_trees(name, teacher):
    network, task = MADE[name]()
    small, report = compress(network, task, f"finetune epochs=1 lr=1e-3{teacher}")
    before, after = network.state_dict(), small.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before) and report.stages[0].seconds > 0
