"""What docs/file.md says of forms in training, worked out with NumPy from their arrays alone, against the forms."""

import numpy as np
import pytest
import torch

from cortado.parts.forms.binary import SCALES, Binary
from cortado.parts.forms.clipped import Clipped
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.product_quantized import ProductQuantized
from cortado.parts.forms.squashed import Squashed
from cortado.parts.forms.ternary import Ternary

VALUES = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(2))


def arrays(form):
    return {name: part.numpy() for name, part in form.parts().items()}


def over_rows(numbers):
    return numbers.reshape(-1, 1, 1, 1)


def learned_step(facts, v, parts):
    step = np.maximum(np.abs(parts["step"]), np.float32(1e-6))
    step = over_rows(step) if facts["layout"] else step
    whole = np.round(v / step)
    if facts["bits"]:
        whole = np.clip(whole, -(2 ** (facts["bits"] - 1)), 2 ** (facts["bits"] - 1) - 1)
    return whole * step


def binary(facts, v, parts):
    sizes = [1.0, np.abs(v).mean(), over_rows(np.abs(v).reshape(len(v), -1).mean(1)), parts["factor"]]
    return np.where(v < 0, -1, 1) * sizes[facts["scale"]]


def ternary(facts, v, parts):
    limit = parts["threshold"] * np.abs(v).max()
    return np.where(v > limit, parts["scales"][0], np.where(v < -limit, -parts["scales"][1], 0))


def squashed(facts, v, parts):
    if facts["bits"] == 1:
        return np.where(v < 0, -1, 1) * np.abs(v).mean()
    t, m = np.tanh(v) / np.abs(np.tanh(v)).max(), 2 ** facts["bits"] - 1
    return (2 * np.round((t * m + m) / 2) - m) / m


def clipped(facts, v, parts):
    zeros, total = float(parts["zeros"][0]), 2 ** facts["bits"] - 1
    sizes, staying, ends = [-v, v], [], []
    for size in sizes:
        low = np.quantile(size[size > 0], zeros)
        stays = (size >= low) & (size > 0) & (zeros < 1)
        staying.append(stays)
        ends.append((low, size[stays].max() if stays.any() else low))
    widths = [high - low for low, high in ends]
    below = round(total * widths[0] / sum(widths)) if sum(widths) else 0
    below = min(max(below, int(staying[0].any())), total - int(staying[1].any()))
    made = np.zeros_like(v)
    for size, stays, (low, high), count in zip(sizes, staying, ends, (below, total - below), strict=True):
        for number in range(count):
            share = np.where(stays, size - low, 0.0) / max(high - low, 1e-30) * count
            inside = stays & (np.minimum(share.astype(int), count - 1) == number)
            if inside.any():
                made[inside] = v[inside].mean()
    return made


def matmul_layers(facts, v, parts):
    rows, inputs = len(VALUES), VALUES[0].numel()
    count = -(-inputs // facts["width"])
    codebooks = parts["codebooks"].reshape(count, facts["values"], facts["width"])
    codes = parts["codes"].reshape(rows, count)
    made = [np.concatenate([codebooks[j, codes[i, j]] for j in range(count)])[:inputs] for i in range(rows)]
    return np.stack(made).reshape(VALUES.shape)


CASES = [
    *((learned_step, LearnedStep.of(VALUES, bits, layout)) for bits in (2, 5) for layout in ("tensor", "channel")),
    (learned_step, LearnedStep(VALUES, 0.21)),
    *((binary, Binary(VALUES, scale)) for scale in SCALES),
    *((ternary, Ternary(VALUES, threshold)) for threshold in (0.05, 0.5)),
    *((squashed, Squashed(VALUES, bits)) for bits in (1, 2, 4)),
    *((clipped, Clipped(VALUES, bits, zeros)) for bits in (2, 4) for zeros in (0.0, 0.57, 1.0)),
    (
        matmul_layers,
        ProductQuantized(torch.arange(8 * 3 * 5.0).view(8, 3, 5), torch.arange(48).view(6, 8) % 3, VALUES.shape),
    ),
]


@pytest.mark.parametrize(("by_the_page", "form"), CASES, ids=[case[0].__name__ for case in CASES])
def test_weight_is_what_the_page_says(by_the_page, form):
    parts = arrays(form)
    wanted = by_the_page(form.spec(), parts.get("values"), parts)
    np.testing.assert_allclose(form.dense().detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
