"""Binary check: every binary convolution of a saved file against PyTorch, operator by operator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.lowering.products import Product
from cortado.runtimes.kernels.binary import binary_steps

SAMPLES, POSITIONS = 2, 7


def check_binary(file: Path, products: Sequence[Product]) -> None:
    """Compare each binary convolution of an OpenVINO file with the signs of its layer in PyTorch, on random values.

    Raises BadNetwork where one differs: other versions of OpenVINO may lack the operator, or compute it wrongly.
    """
    import openvino

    core = openvino.Core()
    by_path = {product.path: product for product in products}
    for path, step in list(binary_steps(core.read_model(str(file)))):
        number = int(step.get_friendly_name()[-1])
        found, values = run_alone(core, step)
        wanted = signs_convolved(values, by_path[path], number)
        if found.shape != wanted.shape or not torch.equal(found, wanted):
            raise BadNetwork(
                f"openvino: {openvino.__version__} multiplies the signs of {path} wrongly: its outputs differ from PyTorch's. "
                "Install the version of constraints.txt, or export to onnxruntime, which multiplies them as floats."
            )


def run_alone(core: Any, step: Any) -> tuple[Tensor, Tensor]:
    """Return the output of a binary convolution alone, and the random values whose signs it read."""
    import openvino
    from openvino import opset1 as operators

    rounding = step.input_value(0).get_node()
    sizes = [axis.get_length() if axis.is_static else POSITIONS for axis in rounding.get_input_partial_shape(0)]
    shape = [SAMPLES, *sizes[1:]]
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values.flat[::7] = 0.0
    given = operators.parameter(shape, np.float32)
    rounding.input(0).replace_source_output(given.output(0))
    model = openvino.Model([operators.result(step)], [given], "alone")
    found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(values)[0]
    return torch.from_numpy(np.array(found)), torch.from_numpy(values)


def signs_convolved(values: Tensor, product: Product, number: int) -> Tensor:
    """Return the convolution of the signs of `values` with the signs of a weight; part 1 counts zeros as -1."""
    weight = product.weight.values.reshape(*product.weight.values.shape[:2], *product.weight.values.shape[2:] or (1, 1))
    above = torch.where(weight > 0 if number else weight >= 0, 1.0, -1.0)
    signs, layer = torch.where(values < 0, -1.0, 1.0), product.layer
    if not isinstance(layer, nn.Conv2d):
        return functional.conv2d(signs, above)
    return functional.conv2d(signs, above, None, layer.stride, layer.padding, layer.dilation)
