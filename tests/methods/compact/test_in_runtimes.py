"""Compact layers in runtimes, and after other methods: the exported files compute what PyTorch does."""

import numpy as np
import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.network.profile.profile import profile
from cortado.runtimes.export import export_into
from cortado.runtimes.runtime import runtime_by_name
from cortado.task.task import Data, Task


def network() -> nn.Module:
    """Two convolutions, maps that are flattened, two linear layers."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 4),
        ).eval()  # fmt: skip


def task() -> Task:
    images = torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    data = Data(images, torch.arange(96) % 4)
    return Task(data, data, data, calibration=data, trial=True)


RECIPES = {
    "all": "compact/groups where=3 | compact/squeeze where=5 | compact/global_pooling",
    "separable": [{"factorize/separable": {"where": "3, 5", "rank": 1}}],
    "cut before": "prune/channels keep=0.75 multiple=1 where=3 | compact/groups where=5 | compact/global_pooling whole=false",
    "rounded": "compact/groups where=3 | compact/squeeze where=5 | quantize/weights bits=8 | quantize/activations bits=8",
    "pruned": "compact/squeeze where=5 relu=true | prune/weights keep=0.5 | prune/channels keep=0.5 multiple=1 where=0",
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exported_file_computes_the_same(name, runtime, tmp_path):
    pytest.importorskip(runtime)
    given, made = task(), runtime_by_name(runtime)
    small, _ = compress(network(), given, RECIPES[name])
    file, _ = export_into(tmp_path, small, given.example, made, given.validation, given.metric)
    with torch.no_grad():
        wanted = small(given.example).numpy()
    (found,) = made.load(file, 1)(given.example)
    # Rounded activations may fall on the other side of a step.
    near = 0.05 * float(np.abs(wanted).max()) if name == "rounded" else 1e-4
    assert np.abs(np.asarray(found) - wanted).max() <= near
    before, after = (profile(one, given.example).total("multiply_adds").value for one in (network(), small))
    assert after < before
