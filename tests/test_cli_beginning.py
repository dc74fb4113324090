"""The commands init and check: the job that is written, what is said of a network and its data, and what is refused."""

import pytest
import torch
import yaml
from click.testing import CliRunner

from cortado.cli import main
from cortado.engine.first_look import first_look
from tests.laws.tiny_nets import BY_NAME
from tests.tasks.test_folder import pictures

NET = "tests.laws.tiny_nets:Depthwise"


def run(*words):
    return CliRunner().invoke(main, [*map(str, words)])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_first_look_counts_scores_and_asks_every_method():
    tiny = BY_NAME["residual"]
    found = first_look(tiny.make().eval(), tiny.task())
    assert found.samples == (len(tiny.task().train), len(tiny.task().validation), len(tiny.task().test))
    assert found.parameters == sum(one.numel() for one in tiny.make().parameters()) and "in 2 groups" in found.cuttable
    asked = dict(found.methods)
    assert asked["prune/weights"] == "" and "attention head" in asked["prune/heads"]
    assert "finetune" not in asked and not found.known_by_heart and "Methods that find work: " in found.text()


def test_network_that_cannot_be_traced_is_still_described():
    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(6, 4)

        def forward(self, values):
            return self.head(values) if values.sum() > 1e9 else 2 * self.head(values)

    tiny = BY_NAME["mlp"]
    task = tiny.task()
    network = Branching() if task.example.shape[1] == 6 else None
    if network is None:
        network = Branching()
        network.head = torch.nn.Linear(task.example.shape[1], 4)
    found = first_look(network.eval(), task)
    assert found.cuttable.startswith("none can be cut.") and dict(found.methods)["quantize/weights"] == ""


def test_perfect_scores_on_validation_data_are_suspicious():
    tiny = BY_NAME["residual"]
    from dataclasses import replace

    found = first_look(tiny.make().eval(), tiny.task())
    assert replace(found, validation_score=99.9, train_score=100.0, unit="%").known_by_heart
    assert not replace(found, validation_score=92.8, train_score=99.9, unit="%").known_by_heart
    assert "may have been trained on" in replace(found, validation_score=99.9, train_score=99.9, unit="%").text()


@pytest.mark.filterwarnings("always:job")
def test_init_writes_a_job_that_compress_reads(here):
    pictures(here / "photos", 6)
    torch.save({"model." + key: value for key, value in made().state_dict().items()}, here / "net.ckpt")
    done = run(
        "init",
        "--network",
        "tests.test_cli_beginning:made",
        "--weights",
        "net.ckpt",
        "--data",
        "photos",
        "--size",
        "12x16",
    )
    assert done.exit_code == 0, done.output
    assert "accuracy" in done.output and "without 'model.'" in done.output
    job = yaml.safe_load((here / "job.yaml").read_text())
    assert job["weights"] == "net.ckpt" and job["task_options"] == {"path": str(here / "photos"), "size": [12, 16]}
    again = run("init", "--network", "tests.test_cli_beginning:made", "--data", "photos")
    assert again.exit_code == 1 and "is there already" in again.output
    assert run("check", "job.yaml").exit_code == 0


def made():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--network is missing"), (["--network", "digits_net"], "--data is missing"),
        (["--network", "digits_net", "--data", "photos/nowhere"], "no folder photos/nowhere"),
        (["--network", "digits_net", "--data", "digits", "--weights", "no.pt"], "no weights no.pt"),
        (["--network", "digits_nett", "--data", "digits"], "digits_net"),
    ],
)  # fmt: skip
def test_init_says_what_is_missing(words, says, here):
    done = run("init", *words)
    assert done.exit_code == 1 and says in done.output.replace("\n", " ")


@pytest.mark.parametrize("size", ["big", "0", "1x2x3", ""])
def test_sizes_that_are_none_are_refused(size, here):
    pictures(here / "photos", 6)
    done = run("init", "--network", "digits_net", "--data", "photos", "--size", size or "x")
    assert done.exit_code == 1 and "--size is a number" in done.output
