"""What the coders write is read by a reader that was written from docs/file.md alone."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.fuzz import chain, pictures_net, with_compact, with_paths
from cortado.file import floats, plane
from cortado.file import mix as mix_coder
from cortado.file.artifact import decode, encode
from cortado.file.entries import tensor_names
from cortado.file.floats import encode_floats
from cortado.file.plane import encode_plane
from cortado.native.coders import mix_encode
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer, sites
from cortado.parts.blocks.block import ORIGINAL, Block, stand_in
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.blocks.shared_norm import SharedNorm
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.low_rank import LowRank
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.masked_latent import MaskedLatent
from cortado.parts.forms.quantized import Quantized
from cortado.parts.forms.states import Course
from cortado.parts.forms.transferred import Transferred
from cortado.parts.forms.transforms import FIXED_SLOTS, NEGATE, REPEAT, ROLL, ROTATE, TRANSLATE
from cortado.parts.part import own_modules
from tests.docs import stranger, stranger_file
from tests.docs.stranger_mix import mix, states
from tests.file.cut_nets import cut_net, plain_net, without_blocks
from tests.file.former_files import former_file
from tests.file.former_nets import former_net
from tests.file.test_former_files import FACTS, FOLDER
from tests.file.test_placed import rounded


def planes() -> dict[str, np.ndarray]:
    """Small planes of the sorts that forms have."""
    draw = np.random.default_rng(0)
    sparse = (np.rint(draw.laplace(scale=2.0, size=(12, 5, 3, 3))) * (draw.random((12, 5, 3, 3)) < 0.3)).astype(
        np.int32
    )
    return {
        "kernels": sparse,
        "mask": (draw.random((20, 24)) < 0.2).astype(np.int32),
        "matrix": np.rint(draw.normal(scale=40, size=(9, 32))).astype(np.int32),
        "shifted": draw.integers(100, 180, (7, 8)).astype(np.int32),
        "list": np.rint(draw.laplace(scale=300, size=90)).astype(np.int32),
        "constant": np.full((3, 4), -7, dtype=np.int32),
        "wide": draw.integers(-(2**31), 2**31, 12).astype(np.int32),
        "zeros": np.zeros((2, 3), dtype=np.int32),
    }


PLANES = planes()
LINE = {name: math.prod(plane.shape[1:]) for name, plane in PLANES.items()}


@pytest.mark.parametrize("name", PLANES)
def test_list_codecs_are_read_by_the_page(name: str) -> None:
    plane = PLANES[name]
    wanted, count = plane.ravel().tolist(), plane.size
    assert stranger.bits(encode_plane(plane, None, "bits").body, count) == wanted
    assert stranger.huffman(encode_plane(plane, None, "huffman").body, count) == wanted
    assert stranger.deep_compression(encode_plane(plane, None, "deep_compression").body, count) == wanted
    assert stranger.rans(encode_plane(plane, None, "rans").body, count, LINE[name]) == wanted


def test_four_streams_are_read_by_the_page() -> None:
    plane = np.rint(np.random.default_rng(1).laplace(scale=9, size=(131, 126))).astype(np.int32)
    assert plane.size > 16384
    assert stranger.rans(encode_plane(plane, None, "rans").body, plane.size, 126) == plane.ravel().tolist()


@pytest.mark.parametrize("name", PLANES)
def test_mix_is_read_by_the_page(name: str) -> None:
    plane = PLANES[name]
    assert mix(encode_plane(plane, None, "mix").body, plane.shape, None) == plane.ravel().tolist()


@pytest.mark.parametrize("name", ["kernels", "matrix", "shifted"])
def test_mix_inside_a_mask_is_read_by_the_page(name: str) -> None:
    plane = PLANES[name]
    where = np.random.default_rng(2).random(plane.shape) < 0.4
    body = encode_plane(plane, where, "mix").body
    assert mix(body, plane.shape, where.ravel().astype(int).tolist()) == np.where(where, plane, 0).ravel().tolist()


@pytest.mark.parametrize("name", ["kernels", "matrix", "mask", "list", "wide", "zeros"])
@pytest.mark.parametrize("course", [Course(4, 9), Course(8, 1024), Course(32, 100)])
def test_states_are_read_by_the_page(name: str, course: Course) -> None:
    plane = PLANES[name]
    body = encode_plane(plane, None, "states", course).body
    assert states(body, plane.shape, None) == plane.ravel().tolist()
    where = np.random.default_rng(2).random(plane.shape) < 0.6
    body = encode_plane(plane, where, "states", course).body
    assert states(body, plane.shape, where.ravel().astype(int).tolist()) == np.where(where, plane, 0).ravel().tolist()


def test_mix_with_a_stride_is_read_by_the_page() -> None:
    draw = np.random.default_rng(3)
    busy = np.where(np.arange(60) % 6 < 2, 0.8, 0.02)
    plane = ((draw.random((14, 60)) < busy) * draw.integers(-3, 4, (14, 60))).astype(np.int32)
    plan = mix_coder.make_plan(plane.shape, (2, 1, 1), stride=6, preset=2, density=3)
    body = mix_coder.header(plan, 2, 0) + mix_encode(plane, None, plan)
    assert mix(body, plane.shape, None) == plane.ravel().tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_read_by_the_page(dtype: type) -> None:
    draw = np.random.default_rng(4)
    size = np.dtype(dtype).itemsize
    rounded = (draw.normal(size=60).astype(dtype) * dtype(16)).round() / dtype(16)
    for values in (rounded, draw.normal(size=50).astype(dtype), np.full(5, 0.75, dtype), np.zeros(0, dtype)):
        assert stranger.floats(encode_floats(values), size, len(values)) == values.tobytes()


class Gate(Block):
    """A user's block: keeps a module, with a factor for each of its outputs."""

    arrays = {"inner": ORIGINAL}
    facts = ("channels",)

    def __init__(self, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.inner, self.gate, self.channels = inner, nn.Linear(channels, 1), channels

    def forward(self, values: Tensor) -> Tensor:
        return self.inner(values) * self.gate.bias


class TheirGate(nn.Module):
    """What the stranger knows of it."""

    keeps = True

    def __init__(self, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.inner, self.gate = inner, nn.Linear(channels, 1)


def read_both_ways(body: bytes, maker: Callable[[], nn.Module], whole: bool = False) -> stranger_file.File:
    """Compare every tensor, changed number and quantizer of the two readers; give the stranger's."""
    key = stranger_file.digest(f"{Gate.__module__}:Gate").hex()
    made, ours = stranger_file.File(body, maker(), {key: (TheirGate, 1)}, whole), decode(body, maker, [Gate])
    modules = dict(ours.named_modules())
    mine = {(path, name) for path, module in own_modules(ours).items() for name in tensor_names(module)}
    assert mine <= made.tensors.keys()
    for (path, name), value in made.tensors.items():
        wanted = getattr(modules[path], name).detach().numpy()
        # A factored weight is a sum, whose order the page leaves open.
        near = 1e-6 if isinstance(form_of(modules[path], name), LowRank) else 0
        assert value.shape == wanted.shape and (not whole or np.allclose(value, wanted, near, near)), (path, name)
    for (number, rank), value in made.values.items():
        attribute, place, now = stranger_file.whole_numbers(modules[made.order[number]])[rank]
        assert abs(now) == value, (attribute, place)
    found = sites(ours)
    assert made.quantizers.keys() == found.keys()
    for site, (name, facts, numbers, part) in made.quantizers.items():
        one = found[site]
        assert (type(one).__name__.lower(), facts) == (name, tuple(one.spec().values()))
        assert numbers == tuple(value.item() for value in one.parts().values())
        assert all((found[other] is one) == (that[3] == part) for other, that in made.quantizers.items())
    return made


@pytest.mark.parametrize("name", ["attention", "option_a", "split", "group_norm", "recurrent"])
def test_cut_networks_are_read_by_the_page(name: str) -> None:
    made = read_both_ways(encode(cut_net(name, 0.25), plain_net(name)), lambda: plain_net(name))
    assert made.version == 4 and made.loose == ([0] if name == "attention" else [])
    assert bool(made.values) == (name in ("attention", "option_a", "split"))


def test_removed_modules_are_read_by_the_page() -> None:
    paths = ["layer1.1", "layer3.1"]
    body = encode(without_blocks("residual", *paths), plain_net("residual"))
    assert read_both_ways(body, lambda: plain_net("residual")).replaced == paths


def small_net() -> nn.Module:
    """Few weights: the stranger is slow."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(2)]
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), *blocks, *ends).eval()


def gated() -> nn.Module:
    """Blocks of all sorts, one in the other, with forms and quantizers on what they keep and on what is their own."""
    small = small_net()
    stand_in(small, small[1], ScaleShift(4, 2))
    stand_in(small, small[2], Gate(small[2], 4))
    stand_in(small, small.get_submodule("2.2"), Bypass())
    stand_in(small, small[3], Gate(small[3], 2))
    stand_in(small, small.get_submodule("3.0"), Gate(small.get_submodule("3.0"), 3))
    kept, mask = dict(small.named_modules())["3.0"], torch.arange(144).view(4, 4, 3, 3) % 3 == 0
    attach(kept, "weight", MaskedLatent(mask, LearnedStep(kept.weight.detach(), 0.1, 4)))
    values = small[6].weight.detach()
    attach(small[6], "weight", Masked(values > 0, Dense(values[values > 0])))
    attach(small[2].gate, "weight", Quantized.of(small[2].gate.weight, 4, "channel", symmetric=False))
    put_quantizer(kept, "input", Affine(0.5, 3, 4))
    put_quantizer(small[2].gate, "output", Affine(0.25, 0, 8))
    return small.eval()


def test_blocks_are_read_by_the_page() -> None:
    body, example = encode(gated(), small_net()), torch.randn(2, 1, 6, 6)
    made = read_both_ways(body, small_net, whole=True)
    assert made.replaced == ["1", "2", "2.2", "3", "3.0"]
    assert ("3.0.gate", "weight") in made.tensors and ("1", "running_mean") not in made.tensors
    assert torch.equal(decode(body, small_net, [Gate])(example), gated()(example))


def test_files_without_kernels_are_read_by_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for coder in (floats, plane):
        monkeypatch.setattr(coder, "has_kernels", lambda: False)
    floats.code_once.cache_clear()
    body = encode(gated(), small_net())
    floats.code_once.cache_clear()
    monkeypatch.undo()
    assert len(body) > len(encode(gated(), small_net()))
    read_both_ways(body, small_net, whole=True)


@pytest.mark.parametrize("transform", [REPEAT, NEGATE, ROTATE, ROLL, TRANSLATE])
def test_transferred_filters_are_read_by_the_page(transform: int) -> None:
    small = small_net()
    kept, slots = small[2][0], FIXED_SLOTS.get(transform, 4)
    shape = Transferred.inner_shapes(
        kept.weight.shape,
        {"transform": transform, "slots": slots, "rows": 2, "channels": 1 if transform == ROLL else 4},
    )["base"]
    codes, inputs = torch.tensor([1, 0, 3, 2]), torch.tensor([0, 2, 1, 3])
    made = Transferred(Dense(torch.randn(shape)), transform, slots, codes, inputs, (3, 3))
    attach(kept, "weight", made.map_values(lambda values: Quantized.of(values, 4, "channel")))
    attach(kept, "bias", Transferred(Dense(torch.ones(2)), REPEAT, 2, codes, torch.arange(0)))
    stand_in(small, small[1], SharedNorm(1, 1_000_000))
    read_both_ways(encode(small.eval(), small_net()), small_net, whole=True)


def test_blocks_of_paths_are_read_by_the_page() -> None:
    made = read_both_ways(encode(with_paths(chain()), chain()), chain, whole=True)
    assert {type(module).__name__ for module in made.network.modules()} >= {"Exit", "Gate", "Ponder", "Experts"}


def test_compact_blocks_are_read_by_the_page() -> None:
    made = read_both_ways(encode(with_compact(pictures_net()), pictures_net()), pictures_net, whole=True)
    assert {type(module).__name__ for module in made.network.modules()} >= {"FireModule", "Grouped", "PooledLinear"}
    assert made.tensors["0.before", "index"].tolist() == [1, 0]


def test_quantizers_are_read_by_the_page() -> None:
    original = plain_net("residual")
    made = read_both_ways(encode(rounded(original), original), lambda: plain_net("residual"))
    assert len(made.quantizers) > 10 and not made.values and not made.replaced


@pytest.mark.parametrize("name", list(FACTS))
def test_former_files_are_read_by_the_page(name: str) -> None:
    made = read_both_ways(
        (FOLDER / f"{name}.cortado").read_bytes(), lambda: former_net(FACTS[name]["network"]), whole=True
    )
    assert made.version == FACTS[name]["version"]


def test_former_files_with_removed_modules_are_read_by_the_page() -> None:
    for version, quantized in ((2, False), (3, True)):
        small = without_blocks("residual", "layer2.1", "layer3.0")
        body = former_file(rounded(small) if quantized else small, plain_net("residual"), version)
        made = read_both_ways(body, lambda: plain_net("residual"))
        assert made.replaced == ["layer2.1", "layer3.0"] and bool(made.quantizers) == quantized
