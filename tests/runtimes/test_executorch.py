"""ExecuTorch runs strided shortcuts, whatever the order in memory of what it is shown; where it is installed."""

import pytest
import torch

from cortado.errors import BadNetwork
from cortado.lowering.graph import quiet_exporters
from cortado.lowering.lower import lowered
from cortado.nets.resnet import CifarResNet
from cortado.runtimes.executorch import Executorch
from tests.lowering.test_in_order import Turned, rounded_resnet

pytest.importorskip("executorch")
pytestmark = pytest.mark.filterwarnings("ignore")
LAST = torch.channels_last


def farthest(network, low, images, folder) -> float:
    """The largest difference of single samples, as a share of the largest output."""
    runtime = Executorch()
    session = runtime.load(runtime.lower(low, images, folder), 1)
    with torch.no_grad():
        wanted = network(images)
        found = torch.cat([session(image)[0] for image in images.split(1)])
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("order", [torch.contiguous_format, LAST])
def test_a_strided_shortcut_runs_in_floats(order, tmp_path):
    torch.manual_seed(0)
    network = CifarResNet(1, width=4).eval().to(memory_format=order)
    images = torch.randn(4, 3, 16, 16).contiguous(memory_format=order)
    assert farthest(network, lowered(network, images), images, tmp_path) < 1e-5


def test_a_strided_shortcut_runs_in_integers(tmp_path):
    network, low, task = rounded_resnet()
    images = task.validation.inputs.contiguous(memory_format=LAST)
    assert farthest(network, low, images, tmp_path) < 0.05


def test_a_network_that_turns_its_pictures_runs(tmp_path):
    torch.manual_seed(0)
    network = Turned().eval()
    images = torch.randn(4, 3, 9, 9)
    assert farthest(network, lowered(network, images), images, tmp_path) < 1e-5


class Spectrum(torch.nn.Module):
    def forward(self, values):
        return torch.fft.rfft(values * 2).abs()


def test_a_refusal_names_operator_and_line(tmp_path):
    with (
        quiet_exporters(),
        pytest.raises(BadNetwork, match=r"It begins at (fft_rfft|abs), test_executorch.py:\d+: return torch.fft"),
    ):
        Executorch().lower(Spectrum().eval(), torch.randn(2, 8), tmp_path)
