"""The table of several networks' scores: means, intervals, paired differences, parameters and bytes."""

import math

import pytest
import torch

import cortado
from cortado.errors import BadFile, BadNetwork, BadTask, BadValue
from cortado.report.score_table import compare_networks
from cortado.task.measure import scores
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]
TASK = NET.task()
WIDE, NARROW = torch.nn.Linear(12, 7), torch.nn.Linear(12, 2)


@pytest.fixture(scope="module")
def networks():
    taught, _ = cortado.compress(NET.make(), TASK, "finetune epochs=20 lr=1e-2")
    small, _ = cortado.compress(taught, TASK, "quantize/weights bits=4")
    return {"untrained": NET.make(), "taught": taught, "small": small}


def test_rows_have_the_means_and_the_intervals_of_the_samples(networks):
    table = compare_networks(networks, TASK)
    for name, network in networks.items():
        found, row = 100 * scores(network, TASK.test, TASK.metric).double(), table.row(name)
        middle, half = float(found.mean()), 1.96 * float(found.std()) / math.sqrt(32)
        assert (row.score, row.low, row.high) == pytest.approx((middle, middle - half, middle + half))


def test_differences_are_paired_with_the_base(networks):
    first = compare_networks(networks, TASK)
    assert first.base == "untrained" and first.row("untrained").change is None
    table = compare_networks(networks, TASK, base="taught")
    one, two = (100 * scores(networks[name], TASK.test, TASK.metric).double() for name in ("taught", "small"))
    change, apart = table.row("small").change, two - one
    assert change.difference == pytest.approx(float(apart.mean()))
    assert change.high - change.difference == pytest.approx(1.96 * float(apart.std()) / math.sqrt(32))
    assert first.row("taught").change.difference == -table.row("untrained").change.difference


def test_sizes_are_those_of_tensors_in_their_forms_and_of_files(networks, tmp_path):
    size_bytes = cortado.save(networks["small"], tmp_path / "net.cortado", NET.make())
    table = compare_networks(networks, TASK, files={"small": tmp_path / "net.cortado"})
    counts = {row.name: row.parameters for row in table.rows}
    assert set(counts.values()) == {12 * 16 + 16 + 16 * 4 + 4}
    assert table.row("taught").size_bytes == 4 * counts["taught"] > 3 * table.row("small").size_bytes
    assert [row.file_bytes for row in table.rows] == [None, None, size_bytes]


def test_text_names_networks_metric_and_base(networks):
    lines = compare_networks(networks, TASK, base="taught").text().splitlines()
    assert lines[0].split("  ")[-1].strip() == "bytes" and "minus taught" in lines[0] and "accuracy" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == list(networks)
    assert lines[3].count("–") == 2 and lines[-1] == "Differences in points, on the same 32 samples."


def test_few_samples_have_no_interval(networks):
    table = compare_networks(networks, TASK, data=TASK.test.first(20))
    assert table.samples == 20 and table.row("small").low is None and table.row("small").change.low is None
    assert "unknown" in str(table)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"base": "nobody"}, BadValue, "compare: there is no network 'nobody'. Given: net"),
        ({"files": {"other": "x"}}, BadValue, "compare: there is no network 'other'"),
        ({"files": {"net": "nowhere.cortado"}}, BadFile, "compare: nowhere.cortado cannot be read"),
        ({"networks": {}}, BadValue, "Given: none"),
        ({"networks": [NET.make()]}, BadValue, "networks must be a dict of names and networks, got list"),
        (
            {"networks": {"net": NET.make(), "small": "small.cortado"}},
            BadNetwork,
            "compare, small: small.cortado is a path",
        ),
        (
            {"networks": {"net": NET.make(), "wide": WIDE}},
            BadNetwork,
            "compare, wide: it gives 7 outputs .* net gives 4. Compare",
        ),
        ({"networks": {"net": NARROW}}, BadTask, "compare, net: task: labels must lie in 0..1"),
        ({"files": {"net": "tests"}}, BadFile, "compare: tests is a folder"),
        ({"networks": {"net": 3}}, BadNetwork, "compare, net: the network must be a torch.nn.Module"),
        ({"networks": {"net": torch.nn.Linear(3, 3)}}, BadNetwork, "cannot take inputs of shape"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(change, kind, says):
    given = {"networks": {"net": NET.make()}, "task": TASK, **change}
    with pytest.raises(kind, match=says):
        compare_networks(**given)


def test_row_that_is_not_there_is_told_with_those_that_are(networks):
    with pytest.raises(BadValue, match="no row 'alone'. There are: untrained, taught, small"):
        compare_networks(networks, TASK).row("alone")
