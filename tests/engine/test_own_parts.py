"""A user's own blocks are found again by name: by a resumed run, and by whoever gets the bundle."""

import pytest
import yaml

from cortado.engine.bundle import write_bundle
from cortado.engine.compress import compress
from cortado.engine.job import read_job
from cortado.engine.own_parts import names_of, parts_named
from cortado.errors import BadRecipe
from cortado.file.artifact import load
from cortado.parts.forms.masked import Masked
from tests.extension.residual_net import ResidualNet, task
from tests.extension.skip_gate import Gate

OWN = "tests.extension.skip_gate:Gate"
RECIPE = [{"tests.extension.skip_gate:SkipBlock": {"at": "blocks.1", "epochs": 0.5}}, {"prune/weights": {"keep": 0.5}}]


def test_names_lead_to_the_classes_and_back():
    assert names_of([Gate, Masked]) == [OWN]
    assert parts_named([OWN], "job") == (Gate,)


@pytest.mark.parametrize("names", ["x", ["nowhere:Gate"], ["tests.extension.skip_gate:SkipBlock"], [3]])
def test_other_names_are_refused(names):
    with pytest.raises(BadRecipe, match="job: forms"):
        parts_named(names, "job")


def test_a_run_is_resumed_and_its_bundle_read_without_naming_the_block(tmp_path):
    net = ResidualNet()
    compress(net, task(), RECIPE, folder=tmp_path)
    again, report = compress(net, task(), RECIPE, folder=tmp_path, resume=True)
    assert not any("another run" in one for one in report.warnings)
    write_bundle(tmp_path, again, net, report, {"job": "tests.engine.test_own_parts:job"})
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["forms"] == [OWN]
    made = read_job(str(tmp_path))
    assert made.forms == (Gate,)
    assert type(load(tmp_path / "net.cortado", net, made.forms).blocks[1]) is Gate


def job():
    return ResidualNet(), task()
