"""Blame for files: a pair of ONNX files gives what the networks give, OpenVINO's the same order; others are refused in words."""

import numpy as np
import pytest
from click.testing import CliRunner

from cortado.blame.blame import blame
from cortado.blame.files import blame_files, read_samples
from cortado.cli import main
from cortado.errors import BadNetwork, BadValue
from cortado.lowering.lower import lowered
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.openvino import Openvino
from tests.blame.test_blame import rounded_pair

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of a network in floats and in integers, and samples."""
    place = tmp_path_factory.mktemp("pair")
    network, small, samples = rounded_pair()
    for name, one in (("floats", network), ("integers", small)):
        for runtime in (Onnxruntime(), Openvino()):
            (place / name / runtime.name()).mkdir(parents=True)
            runtime.lower(lowered(one, samples), samples, place / name / runtime.name())
    np.save(place / "samples.npy", samples.numpy())
    return place


def pair(folder, runtime, suffix):
    return tuple(folder / name / runtime / f"net{suffix}" for name in ("integers", "floats"))


def test_onnx_files_are_judged_as_their_networks_are(folder):
    network, small, samples = rounded_pair()
    wanted = blame(network, small, samples)
    found = blame_files(*pair(folder, "onnxruntime", ".onnx"), samples)
    assert found.error == pytest.approx(wanted.error, rel=0.05) and found.rest < 1e-4
    alone = {one.path: one.alone for one in wanted.rows}
    assert {one.path: one.alone for one in found.rows} == pytest.approx(alone, rel=0.1)


def test_openvino_files_are_judged_by_the_runtime(folder):
    pytest.importorskip("openvino")
    network, small, samples = rounded_pair()
    wanted = blame(network, small, samples)
    found = blame_files(*pair(folder, "openvino", ".xml"), samples, 0.5 * wanted.error)
    assert found.error == pytest.approx(wanted.error, rel=0.2) and found.rest < 1e-3
    assert sorted(one.alone for one in found.rows) == pytest.approx(sorted(one.alone for one in wanted.rows), rel=0.25)
    assert found.floats


def test_the_command_prints_a_table_and_json(folder):
    files = [str(one) for one in pair(folder, "onnxruntime", ".onnx")]
    done = CliRunner().invoke(main, ["blame", *files, "--samples", str(folder / "samples.npy"), "--error", "0.001"])
    assert (
        done.exit_code == 0
        and "in floats down to here" in done.output
        and "For an error of at most 0.10%" in done.output
    ), done.output
    random = CliRunner().invoke(main, ["blame", *files, "--json"])
    assert random.exit_code == 0 and '"alone"' in random.output and "random numbers" in random.output


def test_files_that_cannot_be_judged_are_refused_in_words(folder, tmp_path):
    file, original = pair(folder, "onnxruntime", ".onnx")
    with pytest.raises(BadValue, match="LiteRT's interpreter runs a file as a whole.*ONNX Runtime or OpenVINO"):
        blame_files("net.tflite", "net.tflite")
    with pytest.raises(BadValue, match="are not two .onnx files or two .xml files"):
        blame_files(file, "net.xml")
    with pytest.raises(BadValue, match="need samples"):
        blame_files(*pair(folder, "openvino", ".xml"))
    with pytest.raises(BadNetwork, match="no layer of this network is rounded"):
        blame_files(original, original)
    with pytest.raises(BadValue, match="cannot be read as .npy or .npz"):
        read_samples(tmp_path / "missing.npy")
