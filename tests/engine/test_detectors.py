"""A detector through everything: cut, factorized, rounded, taught by itself as it was, stored, exported and shown."""

import copy
import dataclasses

import pytest
import torch

import cortado
from cortado.boxes.detections import Detections
from cortado.boxes.targets import boxes_by_picture
from cortado.nets.detector import Detector
from cortado.network.compare.divergence import divergence_for, output_rows
from cortado.report.pages.found_boxes import found_boxes_page
from cortado.task.average_precision import mean_average_precision
from cortado.task.measure import mean_score
from cortado.task.outputs.found_boxes import FoundBoxes, found_detections
from tests import tiny_detector as tiny


@pytest.fixture(scope="module")
def network():
    return tiny.trained()


@pytest.fixture(scope="module")
def task():
    return tiny.task()


def finetune(*objectives, epochs=3):
    return {"finetune": {"epochs": epochs, "lr": 5e-3, "teacher": "original", "objectives": list(objectives)}}


def apart(network, small, task):
    """How far the answers of two detectors are apart on validation pictures, in nats."""
    kind, (inputs, _) = divergence_for(network, task), next(task.validation.batches(48))
    return float(kind.divergence(output_rows(network, inputs, kind), output_rows(small, inputs, kind)).mean())


def test_it_has_learned_something_to_lose(network, task):
    assert mean_score(network, task.validation, task.metric) > 60


def test_a_detector_is_cut_and_taught_back_and_its_file_is_exact(network, task, tmp_path):
    cut, _ = cortado.compress(network, task, "prune/channels keep=0.6")
    taught, report = cortado.compress(
        network, task, [{"prune/channels": {"keep": 0.6}}, finetune({"logits": {"temperature": 2.0}})]
    )
    heads = [sum(one.numel() for one in net.parameters()) for net in (network, taught)]
    assert heads[1] < 0.75 * heads[0]
    assert apart(network, taught, task) < 0.7 * apart(network, cut, task), "the teacher's boxes and classes come back"
    assert report.stages[1].score > report.stages[0].score and report.test.low <= report.test.high
    cortado.save(taught, tmp_path / "small.cortado", network)
    again = cortado.load(tmp_path / "small.cortado", tiny.network)
    for one, other in zip(again(task.example), taught(task.example), strict=True):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def in_integers(network, task):
    return cortado.compress(network, task, "quantize/weights bits=7 | quantize/activations")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_detector_in_integers_runs_as_in_pytorch(in_integers, task, tmp_path, runtime):
    small, report = in_integers
    assert abs(report.test.difference) < 8
    row = cortado.export(small, task, runtime, tmp_path / "out")
    assert row.score == pytest.approx(row.torch_score, abs=3) and row.same_top > 0.9
    assert row.integer_share is None or row.integer_share > 0.9


@pytest.mark.parametrize(
    "recipe",
    [
        ["factorize/svd rank=6", finetune("task", "logits", epochs=1)],
        ["quantize/aware bits=4", finetune("logits", epochs=1)],
        [
            finetune(
                "task",
                {"features": {"at": "backbone.stages.1"}},
                {"attention": {"at": "backbone.stages.0"}},
                epochs=0.5,
            )
        ],
        ["prune/weights keep=0.5 by=curvature", "share/kmeans bits=5"],
    ],
)
def test_methods_run_on_a_detector(network, task, recipe):
    small, report = cortado.compress(network, task, recipe)
    assert report.size_bytes < report.original_bytes and report.stages[-1].score > 20
    assert [one.shape for one in small(task.example)] == [one.shape for one in network(task.example)]


def test_a_detector_that_ends_in_boxes_is_exported_as_one(network, task, tmp_path):
    whole = Detector(network, tiny.GRID, score=0.3, most=6, candidates=24)
    boxes = dataclasses.replace(
        task, metric=mean_average_precision(2, found_detections, (0.5,)), outputs=FoundBoxes(), loss=len
    )
    row = cortado.export(whole, boxes, "onnxruntime", tmp_path / "out")
    assert row.same_top == 1 and row.score == pytest.approx(mean_score(whole, boxes.validation, boxes.metric))
    alone = mean_average_precision(2, Detections(tiny.GRID, 0.3, 0.45, 6, 24), (0.5,))
    assert row.score == pytest.approx(mean_score(network, task.validation, alone))


def test_boxes_before_and_after_are_a_page(network, task):
    worse = copy.deepcopy(network)
    with torch.no_grad():
        worse.offsets[0][-1].bias.add_(3)
    inputs, targets = task.test.first(4).inputs, task.test.first(4).targets
    read = Detections(tiny.GRID, least=0.3)
    found = {"true": boxes_by_picture(targets), "original": read(network(inputs)), "changed": read(worse(inputs))}
    pixels = ((inputs.permute(0, 2, 3, 1) + 1.5) * 80).clamp(0, 255).byte().numpy()
    page = found_boxes_page(pixels, found, ["bright", "dark"], least=0.3)
    wanted = sum(len(one["boxes"]) for each in found.values() for one in each)
    assert page.count("<rect") == wanted > 4 and page.count("<svg") == 12


def test_objectives_of_plain_classes_say_what_to_take_instead(network, task):
    with pytest.raises(cortado.CortadoError, match="outputs are Detected. Use logits or features"):
        cortado.compress(network, task, [finetune("task", "decoupled")])
