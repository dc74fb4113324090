"""Without compiled kernels: files in plain codecs, written and read in seconds, that every reader opens."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cortado.file import floats, mix, plane, rans
from cortado.file.artifact import load
from cortado.file.contents import read_contents
from cortado.file.plane import CODECS, decode_plane, encode_plane
from cortado.nets.lenet import lenet_300_100
from cortado.parts.forms.attach import attach, part_kinds
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.masked import Masked
from tests.fresh import fresh

SECONDS = 20
SAVED = """
import json, os, sys, time
folder = sys.argv[1]
os.environ.update(PATH=folder, CXX="", CORTADO_CACHE=folder, CORTADO_NATIVE="1")
import cortado
from tests.file.test_without_kernels import pruned_and_shared
original, small = pruned_and_shared()
begin = time.process_time()
cortado.save(small, folder + "/small.cortado", original=original)
written = time.process_time()
cortado.load(folder + "/small.cortado", original=original)
print(json.dumps([written - begin, time.process_time() - written]))
"""


def pruned_and_shared() -> tuple[nn.Module, nn.Module]:
    """LeNet-300-100, and a copy with 8 % of its weights, in 16 values."""
    torch.manual_seed(0)
    original = lenet_300_100().eval()
    small = copy.deepcopy(original)
    for layer in (one for one in small.modules() if isinstance(one, nn.Linear)):
        values = layer.weight.detach()
        mask = values.abs() >= values.abs().quantile(0.92)
        attach(layer, "weight", Masked(mask, Codebook(torch.linspace(-0.1, 0.1, 16), (values[mask] * 997).long() % 16)))
    return original, small


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine without a compiler; the slow ports must not be asked."""
    floats.code_once.cache_clear()
    monkeypatch.setattr(plane, "has_kernels", lambda: False)
    monkeypatch.setattr(floats, "has_kernels", lambda: False)
    monkeypatch.setattr(mix, "encode", lambda *_, **__: pytest.fail("the mixing coder runs in Python"))
    yield
    floats.code_once.cache_clear()


def test_without_a_compiler_a_network_is_saved_and_loaded_in_seconds(tmp_path: Path) -> None:
    done = fresh(SAVED, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)) < SECONDS
    assert (
        done.stderr.count("native: no kernel (no C++ compiler was found; install g++). Files are written in plain") == 1
    )
    original, small = pruned_and_shared()
    contents = read_contents((tmp_path / "small.cortado").read_bytes(), list(part_kinds(small)))
    used = {stream.codec for record in contents.records for stream in record.streams}
    assert {None} < used <= {None, *CODECS.values()} - {CODECS["mix"]}
    again = load(tmp_path / "small.cortado", original)
    example = torch.randn(3, 1, 28, 28)
    assert torch.equal(again(example), small(example))


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize(("share", "codec"), [(0.05, "deep_compression"), (1.0, "huffman")])
def test_large_planes_take_the_shortest_codec_of_numpy(share: float, codec: str) -> None:
    draw = np.random.default_rng(0)
    shape = (600, rans.PORT_LIMIT // 500)
    values = np.where(draw.random(shape) < share, np.rint(draw.laplace(scale=3, size=shape)), 0).astype(np.int32)
    coded = encode_plane(values)
    assert coded == encode_plane(values, codec="quick")
    assert coded.codec == CODECS[codec]
    assert (decode_plane(coded, shape) == values).all()


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("count", [500, rans.PORT_LIMIT + 1])
def test_floats_come_back_and_large_ones_stay_as_they_are(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count).astype(np.float32)
    body = floats.encode_floats(values)
    assert (len(body) < values.nbytes) == (count == 500)
    assert (floats.decode_floats(body, np.float32, count) == values).all()
