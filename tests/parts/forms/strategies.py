"""Forms of all sorts for property tests, nested as they may nest."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from cortado.parts.forms.binary import SCALES, Binary
from cortado.parts.forms.clipped import Clipped
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.product_quantized import ProductQuantized, inputs_of
from cortado.parts.forms.quantized import Quantized
from cortado.parts.forms.squashed import Squashed
from cortado.parts.forms.states import LAWS
from cortado.parts.forms.ternary import Ternary
from cortado.parts.forms.trellis import Trellis

SHAPES = ((6,), (4, 5), (3, 2, 3), (2, 3, 2, 2), (1, 1), (5, 1), (1, 7))


def values_of(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers; a few of them zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.15, 0.0, values).to(dtype)


def palette_of(values: Tensor, count: int, seed: int) -> Codebook:
    """A codebook of `count` random values, unsorted, and random codes."""
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(count, generator=generator)
    return Codebook(codebook, torch.randint(0, count, values.shape, generator=generator))


def matmul_layers_of(values: Tensor, count: int, width: int, seed: int) -> ProductQuantized:
    """Random codebooks of `count` vectors as wide as a row allows, and random codes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = inputs_of(values.shape)
    width = max(1, min(width, inputs))
    positions = -(-inputs // width)
    codebooks = torch.randn(positions, count, width, generator=generator)
    return ProductQuantized(
        codebooks, torch.randint(0, count, (len(values), positions), generator=generator), values.shape
    )


@st.composite
def latents(draw, values: Tensor) -> Form:
    """A form in training, near `values`."""
    sort = draw(st.sampled_from(["step", "steps", "binary", "ternary", "squashed", "clipped"]))
    if sort == "step" or (sort == "steps" and not values.numel()):
        return LearnedStep(values, draw(st.sampled_from([0.25, 0.1])))
    if sort == "steps":
        return LearnedStep.of(values, draw(st.integers(2, 5)), draw(st.sampled_from(["tensor", "channel"])))
    if sort == "binary":
        return Binary(values, draw(st.sampled_from(SCALES)))
    if sort == "ternary":
        return Ternary(values, draw(st.sampled_from([0.0, 0.05, 0.4])))
    if sort == "squashed":
        return Squashed(values, draw(st.integers(1, 4)))
    return Clipped(values, draw(st.integers(2, 4)), draw(st.sampled_from([0.0, 0.3, 1.0])))


@st.composite
def leaves(draw, values: Tensor) -> Form:
    """A form without others inside, near `values`."""
    sort = draw(st.sampled_from(["dense", "codebook", "matmul_layers", "quantized", "trellis", "latent"]))
    if sort == "dense":
        return Dense(values)
    if sort == "codebook":
        return palette_of(values, draw(st.sampled_from([1, 2, 5, 255, 256])), draw(st.integers(0, 99)))
    if sort == "matmul_layers":
        return matmul_layers_of(values, draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(0, 99)))
    if sort == "latent":
        return draw(latents(values))
    if sort == "trellis":
        layout = draw(st.sampled_from(["tensor", "channel"] if values.dim() > 1 else ["tensor"]))
        scale = torch.full((len(values) if layout == "channel" else 1,), draw(st.sampled_from([0.1, 0.5])))
        segment = draw(st.sampled_from([1, 3, max(1, values.shape[1:].numel()), 1024]))
        return Trellis((values / 0.3).round().int(), scale, draw(st.sampled_from(list(LAWS))), segment, layout)
    layouts = ["tensor", "channel", "group"] if values.dim() > 1 and values.numel() else ["tensor"]
    layout = draw(st.sampled_from(layouts))
    group = draw(st.integers(1, 4)) if layout == "group" else 0
    return Quantized.of(values, draw(st.integers(1, 8)), layout, group, draw(st.booleans()))


@st.composite
def forms(draw) -> Form:
    """Any form: a leaf, or a mask over one, or a mask over a mask over one."""
    shape = draw(st.sampled_from(SHAPES))
    values = values_of(shape, draw(st.integers(0, 10_000)))
    depth = draw(st.integers(0, 2))
    masks = []
    for _ in range(depth):
        mask = torch.rand(values.shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 999)))) < 0.7
        mask.view(-1)[0] = True
        masks.append(mask)
        values = values[mask]
    form = draw(leaves(values))
    for mask in reversed(masks):
        form = Masked(mask, form)
    return form
