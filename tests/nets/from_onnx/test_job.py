"""An ONNX file as the network of a job: described, cut, and verified where its file is gone."""

import shutil

import pytest
import torch
import yaml

from cortado.engine.bundle import check_bundle
from cortado.lowering.lower import lowered
from cortado.nets.digits import digits_net
from cortado.runtimes.onnxruntime import Onnxruntime
from tests.test_cli import cortado, here

__all__ = ["here"]


@pytest.fixture
def onnx_job(here):
    """A job beside which an ONNX file lies."""
    (here / "nets").mkdir()
    example = torch.rand(2, 1, 8, 8)
    written = Onnxruntime().lower(lowered(digits_net().eval(), example), example, here / "nets")
    written.rename(here / "nets" / "own.onnx")
    (here / "job.yaml").write_text(
        yaml.safe_dump({"network": "nets/own.onnx", "task": "digits", "train": {"epochs": 1}})
    )
    return here


def test_onnx_file_is_cut_and_its_bundle_is_verified_elsewhere(onnx_job, tmp_path):
    assert "multiply-adds" in cortado("profile", "job.yaml").output
    done = cortado(
        "compress", "job.yaml", "--recipe", "prune/channels keep=0.5 | quantize/weights bits=8", "--out", "out"
    )
    assert done.exit_code == 0, done.output
    assert "own.onnx" in check_bundle(onnx_job / "out")
    shutil.move(onnx_job / "out", tmp_path / "moved")
    shutil.rmtree(onnx_job / "nets")
    done = cortado("verify", str(tmp_path / "moved"))
    assert done.exit_code == 0, done.output
