"""Pruned and shared layers in ONNX Runtime: own operators where they are faster, and the reason where they are not."""

from pathlib import Path

import pytest
import torch
from torch import nn

import cortado
from cortado.native.build import PRODUCTS_LIBRARY, PRODUCTS_SOURCE, find_compiler
from cortado.report.record import Exported
from cortado.runtimes.export import export
from cortado.runtimes.kernels import native
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Metric, Task

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")


def task() -> Task:
    data = Data(torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 2)
    score = Metric("size", "", lambda out, _: -out.flatten(1).square().mean(1), True, 1.0)
    return Task(data, data, data, trial=True, device="cpu", metric=score, outputs=Numbers())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 4),
    ).eval()  # fmt: skip


def exported(recipe: str, folder: Path, **options: bool) -> Exported:
    small, _ = cortado.compress(network(), task(), recipe)
    return export(small, task(), "onnxruntime", folder, **options)


def kernels(row: Exported) -> dict[str, tuple[str, int]]:
    return {one.layer: (one.kernel, one.bits) for one in row.placements}


def test_mostly_zeros_run_as_sparse_products_and_the_library_is_beside_the_file(tmp_path):
    row = exported("prune/weights keep=0.05", tmp_path / "out")
    found = kernels(row)
    assert all(found[layer] == ("sparse", 32) for layer in ("3", "5", "9"))
    assert row.difference < 1e-5
    assert {PRODUCTS_LIBRARY, PRODUCTS_SOURCE} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_half_zeros_say_why_they_are_not_faster(tmp_path):
    row = exported("prune/weights keep=0.5", tmp_path / "out")
    whys = {one.layer: one.why for one in row.placements}
    assert whys["3"] == "sparse: its zeros are 50%, and the sparse product is faster only from 70% on"
    assert whys["9"] == "sparse: its zeros are 50%, and the sparse product is faster only from 90% on"
    assert not (tmp_path / "out" / PRODUCTS_LIBRARY).exists()


def test_a_standard_file_has_no_operators_of_ours(tmp_path):
    row = exported("prune/weights keep=0.05", tmp_path / "out", own_operators=False)
    assert {one.kernel for one in row.placements} == {"float32"}
    assert all("zeros" in one.why for one in row.placements if one.layer in ("3", "5", "9"))
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix in (".so", ".cpp")] == []


@pytest.mark.parametrize("rounds", [False, True])
def test_free_codebooks_run_as_codebook_products(rounds, tmp_path):
    row = exported("share/kmeans bits=4 where='9.weight'", tmp_path / "out", rounds_inputs=rounds)
    assert kernels(row)["9"] == ("codebook", 4)
    assert row.difference < (0.05 if rounds else 1e-5)


def test_without_a_compiler_the_file_is_dense_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "product_library", lambda: "there is no C++ compiler here")
    row = exported("prune/weights keep=0.05", tmp_path / "out")
    assert {one.kernel for one in row.placements} == {"float32"}
    assert {one.why for one in row.placements if one.layer in ("3", "5", "9")} == {
        "sparse: there is no C++ compiler here"
    }
