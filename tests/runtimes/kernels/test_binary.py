"""Products of signs in OpenVINO: the numbers of PyTorch, in one bit a weight, or a float product with the reason."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.lowering.lower import lowered
from cortado.lowering.products import products_of
from cortado.network.finalize import finalized_copy
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.activations.sign import Sign
from cortado.parts.forms.attach import attach
from cortado.parts.forms.binary import Binary
from cortado.parts.forms.dense import Dense
from cortado.report.record import Placement
from cortado.runtimes.kernels.binary import BinaryProducts
from cortado.runtimes.kernels.binary_check import check_binary
from cortado.runtimes.openvino import Openvino, openvino_package
from cortado.runtimes.placements import placements


def signed(layer: nn.Module, **settings: int) -> nn.Module:
    """A layer whose weights are signs with a scale a row, and whose inputs are rounded to signs."""
    attach(layer, "weight", Binary(layer.weight.detach(), "channel"))
    put_quantizer(layer, "input", Sign(**settings))
    return layer


def drawn(*shape: int) -> torch.Tensor:
    """Normal values, some of them zero, of either sign."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    values.flatten()[::5] = 0.0
    values.flatten()[::10] = -0.0
    return values


def written(network: nn.Module, example: torch.Tensor, folder: Path) -> tuple[Path, tuple[Placement, ...]]:
    """The file of a network in eval mode, and its placements."""
    network.eval()
    low = lowered(network, example)
    file = Openvino().lower(low, example, folder)
    return file, placements(Openvino(), file, network, example, low)


def answer(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The output when training has ended, which rounds scales."""
    with torch.no_grad():
        return finalized_copy(network)(inputs)


def far(network: nn.Module, file: Path, inputs: torch.Tensor) -> float:
    """How far the file's output is from that of the finalized network, as a share of the largest."""
    (found,) = Openvino().load(file, 1)(inputs)
    wanted = answer(network, inputs)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def check(network: nn.Module, inputs: torch.Tensor, folder: Path) -> None:
    """All layers are binary, and the outputs are PyTorch's."""
    file, rows = written(network, inputs, folder)
    assert {(row.kernel, row.bits, row.why) for row in rows} == {("binary", 1, "")}
    assert far(network, file, inputs) < 1e-6


@pytest.mark.parametrize("channels", [8, 16, 24, 40, 104])
def test_any_multiple_of_eight_inputs_is_exact(channels, tmp_path):
    torch.manual_seed(0)
    check(signed(nn.Conv2d(channels, 5, 3, padding=1)), drawn(3, channels, 6, 5), tmp_path)


@pytest.mark.parametrize("channels", [4, 12, 13, 100])
def test_other_numbers_of_inputs_stay_in_floats_with_the_reason(channels, tmp_path):
    """The operator would take them, and give wrong numbers without an error."""
    torch.manual_seed(0)
    network, inputs = signed(nn.Conv2d(channels, 8, 3)), drawn(2, channels, 5, 5)
    file, (row,) = written(network, inputs, tmp_path)
    assert row.kernel == "float32" and row.why == f"binary: its {channels} inputs are no multiple of 8"
    assert far(network, file, inputs) < 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 1}, {"kernel_size": 5, "padding": 2}, {"kernel_size": 7, "stride": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)}, {"kernel_size": 3, "dilation": 2}, {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    ],
    ids=str,
)  # fmt: skip
def test_kernels_strides_paddings_and_dilations_are_exact(settings, tmp_path):
    torch.manual_seed(0)
    check(signed(nn.Conv2d(16, 12, **settings)), drawn(2, 16, 9, 8), tmp_path)


@pytest.mark.parametrize("shape", [(3, 32), (2, 5, 32), (2, 3, 4, 32)])
def test_linear_layers_are_exact(shape, tmp_path):
    torch.manual_seed(0)
    check(signed(nn.Linear(32, 6)), drawn(*shape), tmp_path)


@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("linear", [True, False])
def test_scales_of_samples_and_several_terms_are_kept(terms, linear, tmp_path):
    torch.manual_seed(0)
    layer = signed(nn.Linear(16, 6) if linear else nn.Conv2d(16, 6, 3), scaled=True, terms=terms)
    file, (row,) = written(layer, drawn(4, 16) if linear else drawn(4, 16, 5, 5), tmp_path)
    assert row.kernel == "binary"
    steps = openvino_package().Core().read_model(str(file)).get_ordered_ops()
    assert sum(step.get_type_name() == "BinaryConvolution" for step in steps) == terms
    assert far(layer, file, drawn(4, 16) if linear else drawn(4, 16, 5, 5)) < 1e-5


def test_ternary_weights_are_two_products_of_signs(tmp_path):
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 6, 3)
    scale = torch.rand(6, 1, 1, 1) + 0.5
    attach(layer, "weight", Dense(torch.randint(-1, 2, layer.weight.shape) * scale))
    put_quantizer(layer, "input", Sign())
    check(layer, drawn(2, 16, 5, 5), tmp_path)


def test_weights_of_unequal_sides_stay_in_floats(tmp_path):
    layer = nn.Linear(16, 4)
    attach(layer, "weight", Dense(torch.where(layer.weight.detach() < 0, -0.5, 0.7)))
    put_quantizer(layer, "input", Sign())
    _, (row,) = written(layer, drawn(2, 16), tmp_path)
    assert row.why == "binary: its weights are not signs with one scale a row"


def test_signs_of_weights_alone_say_what_is_missing(tmp_path):
    layer = nn.Linear(16, 4)
    attach(layer, "weight", Binary(layer.weight.detach(), "channel"))
    _, (row,) = written(layer, drawn(2, 16), tmp_path)
    assert "binary: its input is not rounded to signs" in row.why


class Units(nn.Module):
    """A shared layer, two layers of equal weights, clipping before signs, norms, a residual, and float ends."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.end = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.shared, self.one, self.two = (signed(nn.Conv2d(8, 8, 3, padding=1, bias=False)) for _ in range(3))
        attach(self.two, "weight", Binary(self.one.weight.detach(), "channel"))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        for norm in self.norms:
            norm.running_mean.normal_()
            norm.weight.data.uniform_(-1, 1)
        self.clip, self.act = nn.Hardtanh(), nn.PReLU(8)

    def forward(self, activation):
        activation = self.stem(activation)
        activation = self.norms[0](self.shared(self.clip(activation))) + activation
        activation = self.act(self.norms[0](self.shared(activation)) + activation)
        activation = self.norms[1](self.one(activation))
        return self.end(self.norms[2](self.two(activation)).mean((2, 3)))


def test_a_network_of_binary_units_is_exact_at_every_batch_size(tmp_path):
    network = Units()
    file, rows = written(network, drawn(2, 3, 8, 8), tmp_path)
    assert {row.layer: row.kernel for row in rows} == {
        "stem": "float32", "shared": "binary", "one": "binary", "two": "binary", "end": "float32",
    }  # fmt: skip
    session = Openvino().load(file, 1)
    for batch in (1, 5, 2, 8, 5):
        inputs = drawn(batch, 3, 8, 8)
        torch.testing.assert_close(session(inputs)[0], answer(network, inputs), rtol=1e-5, atol=1e-5)


def test_weights_take_one_bit_in_the_file(tmp_path):
    written(signed(nn.Conv2d(64, 64, 3, bias=False)), drawn(2, 64, 4, 4), tmp_path)
    bits = 8 * (tmp_path / "net.bin").stat().st_size
    assert 64 * 64 * 9 <= bits < 64 * 64 * 9 + 32 * 64 * 4


def test_script_of_a_bundle_runs_it_at_two_batch_sizes(tmp_path):
    network, inputs = signed(nn.Linear(16, 4)).eval(), drawn(5, 16)
    file, _ = written(network, inputs, tmp_path)
    np.save(tmp_path / "inputs.npy", inputs.numpy())
    code = f"""
import numpy as np
FILE = {str(file)!r}
{Openvino.script}
inputs = np.load({str(tmp_path / "inputs.npy")!r})
np.save({str(tmp_path / "found.npy")!r}, np.concatenate([predict(inputs[:3]), predict(inputs[3:])]))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "found.npy")), answer(network, inputs))


def test_a_file_that_multiplies_wrongly_is_refused(tmp_path):
    network, inputs = signed(nn.Conv2d(16, 8, 3)).eval(), drawn(2, 16, 5, 5)
    file, _ = written(network, inputs, tmp_path)
    (product,) = products_of(lowered(network, inputs), inputs)
    check_binary(file, [product])
    product.weight.values[2, 3, 1, 1] *= -1
    with pytest.raises(BadNetwork, match="multiplies the signs of  wrongly"):
        check_binary(file, [product])


def test_groups_and_other_paddings_say_why():
    torch.manual_seed(0)
    grouped, reflected = nn.Conv2d(16, 16, 3, groups=2), nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect")
    for layer, reason in ((grouped, "its 2 groups"), (reflected, "its padding is reflect")):
        (product,) = products_of(lowered(signed(layer).eval(), drawn(2, 16, 5, 5)), drawn(2, 16, 5, 5))
        assert reason in str(BinaryProducts().fits(product))
