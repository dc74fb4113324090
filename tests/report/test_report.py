"""Report: to JSON and back, what counts as met, and the paired interval against textbook statistics."""

import json
import math
from pathlib import Path

import pytest
import torch

from cortado.errors import BadFile
from cortado.file.accounting import Histogram, LayerRow
from cortado.report.report import Compared, Line, Report, Stage, environment, paired_interval, read_report


def small_report(*lines: Line) -> Report:
    row = LayerRow("fc.weight", (3, 4), "masked(codebook)", 12, 5, 33, 12, 384, 6, 2.0, 1.5, 3.0, 1.25, 62.0, 48.5)
    return Report(
        task="digits",
        network="Digits",
        metric_name="accuracy",
        metric_unit="%",
        higher_is_better=True,
        original_bytes=400,
        original_validation=97.5,
        stages=(
            Stage("prune/weights", {"keep": 0.5, "of": None}, 97.0, 200, 0.5, 1.5),
            Stage("finetune", {}, 97.4, 190, 0.5, 9.0),
        ),
        lines=lines,
        test=Compared(97.5, 97.4, -0.1, -0.2, None, 100),
        layers=(row,),
        pictures=(Histogram("codes", (-0.5, 0.5, 1.5), (3, 2)), Histogram("gaps", (0.5, 1.5), (2,), "gaps")),
        warnings=("one",),
        recipe={"stages": [{"finetune": {"epochs": 1}}]},
        seed=3,
        environment={"python": "3.11"},
    )


def test_a_report_comes_back_from_its_json(tmp_path: Path) -> None:
    report = small_report(Line("size", "B", 400, 190, "size <= 200 B", True), Line("latency", "ms", None, None))
    path = tmp_path / "report.json"
    path.write_text(report.as_json(), encoding="utf8")
    again = read_report(path)
    assert again == report
    assert (again.layers[0].rate, again.pictures[1].of, again.size_bytes) == (62 / 384, "gaps", 190)


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"stages": []}', "not json"])
def test_what_is_no_report_is_refused(tmp_path: Path, body: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(body)
    with pytest.raises(BadFile, match="not a report"):
        read_report(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="not a report"):
        read_report(tmp_path / "none.json")


def test_a_report_with_a_field_too_many_is_refused(tmp_path: Path) -> None:
    data = json.loads(small_report().as_json()) | {"speed": 3}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data))
    with pytest.raises(BadFile, match="speed"):
        read_report(path)


@pytest.mark.parametrize(
    ("answers", "met"),
    [((), True), ((True, True), True), ((True, False), False), ((True, None), False), ((None,), False)],
)
def test_met_is_what_was_proved(answers: tuple[bool | None, ...], met: bool) -> None:
    lines = [Line("thing", "B", 1, 1, "size <= 2 B", answer) for answer in answers]
    assert small_report(*lines, Line("no limit", "B", 1, 1)).met is met


def test_paired_interval_is_that_of_the_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    original = (torch.rand(200, generator=generator) < 0.9).float()
    small = (torch.rand(200, generator=generator) < 0.85).float()
    found = paired_interval(original, small, 100.0)
    each = [100 * (after - before) for before, after in zip(original.tolist(), small.tolist(), strict=True)]
    mean = sum(each) / 200
    error = math.sqrt(sum((value - mean) ** 2 for value in each) / 199 / 200)
    assert (found.original, found.compressed) == pytest.approx(
        (100 * original.mean().item(), 100 * small.mean().item())
    )
    assert (found.difference, found.low, found.high) == pytest.approx((mean, mean - 1.96 * error, mean + 1.96 * error))
    assert found.samples == 200


def test_paired_interval_is_unknown_with_few_samples() -> None:
    found = paired_interval(torch.ones(29), torch.zeros(29), 100.0)
    assert (found.low, found.high, found.difference) == (None, None, -100.0)
    assert paired_interval(torch.ones(30), torch.ones(30), 100.0).low == 0.0


def test_environment_names_where_it_was_measured() -> None:
    found = environment()
    assert {"python", "torch", "system", "processor", "threads"} <= set(found)
    assert all(found.values())
    assert found["torch"] == torch.__version__
