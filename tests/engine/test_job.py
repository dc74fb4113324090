"""Jobs: a network, a task and how to begin, from Python or YAML."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cortado.engine.job import Job, read_job
from cortado.engine.recipe import make_stage, read_recipe
from cortado.errors import BadNetwork, BadRecipe, BadTask
from cortado.methods.student import Student
from cortado.nets.checkpoint import load_weights
from cortado.task.limits import read_limits
from tests.laws.tiny_nets import BY_NAME, Depthwise

NET = BY_NAME["residual"]


def make():
    return NET.make(), NET.task()


def test_weights_are_loaded_strictly_and_batch_counters_may_be_missing(tmp_path):
    state = {
        key: value + 1 for key, value in NET.make().state_dict().items() if not key.endswith("num_batches_tracked")
    }
    save_file(state, tmp_path / "net.safetensors")
    network = NET.make()
    load_weights(network, tmp_path / "net.safetensors")
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("head.bias"), r"missing \['head.bias'\]"),
        (lambda s: s.update(extra=torch.zeros(1)), r"unexpected \['extra'\]"),
        (lambda s: s.update({"head.bias": torch.zeros(9)}), r"of another shape \['head.bias'\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_names(tmp_path, change, says):
    state = dict(NET.make().state_dict())
    change(state)
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(BadNetwork, match=says):
        load_weights(NET.make(), tmp_path / "net.safetensors")


@pytest.mark.parametrize("name", ["net.safetensors", "net.npz"])
def test_weights_that_are_no_weights_are_refused_in_words(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(BadNetwork, match=name):
        load_weights(NET.make(), tmp_path / name)


def test_original_network_is_trained_once_and_kept(tmp_path):
    job = Job(make=NET.maker, make_task=NET.task, training={"epochs": 1, "lr": 0.01})
    first, again = job.original(NET.task(), tmp_path), job.original(NET.task(), tmp_path)
    assert len(list(tmp_path.glob("original*.safetensors"))) == 1
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    untrained = Job(make=NET.maker, make_task=NET.task).original(NET.task())
    assert not torch.equal(untrained.head.weight, first.head.weight)


def test_original_network_depends_on_the_seed_of_the_task():
    job = Job(make=NET.maker, make_task=NET.task)
    torch.manual_seed(1)
    one = job.original(NET.task())
    torch.manual_seed(2)
    assert torch.equal(one.head.weight, job.original(NET.task()).head.weight)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("network: lenet_5", "has no task"),
        ("task: mnist", "has no network"),
        ("netwrk: lenet_5\ntask: mnist", "no key 'netwrk'; did you mean 'network'"),
        ("[1, 2]", "holds no keys"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_job_file_that_is_none_is_refused(tmp_path, text, says):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(BadRecipe, match=says):
        read_job(str(tmp_path / "job.yaml"))


def test_network_by_name_is_made_with_its_options(tmp_path):
    (tmp_path / "job.yaml").write_text("network: lenet_300_100\ntask: digits\nseed: 3\n")
    job = read_job(str(tmp_path / "job.yaml"))
    assert isinstance(job.make(), nn.Module)
    assert job.make_task().seed == 3
    assert read_job(str(tmp_path / "job.yaml"), 5).make_task().seed == 5


STUDENT = {"student": {"network": "tests.laws.tiny_nets:Depthwise"}}


@pytest.mark.parametrize(
    ("recipe", "small"),
    [
        (None, False),
        ("quantize/weights bits=2..8", False),
        ([{"quantize/weights": {"bits": "2..8"}}], False),
        ([STUDENT, {"finetune": {"lr": "1e-4..1e-2"}}], True),
        ({"stages": ["finetune", {"repeat": {"times": 2, "do": [STUDENT, "finetune"]}}]}, True),
        ("student network=tests.laws.tiny_nets:Depthwise | finetune lr=1e-4..1e-2", True),
        (["student network=tests.laws.tiny_nets:Depthwise", "finetune"], True),
        (read_recipe([STUDENT, "finetune"]), True),
        (Student(network=Depthwise), True),
    ],
)
def test_files_of_a_job_need_the_student_of_its_recipe(recipe, small):
    """The recipe may be one with open values, which only a search can run."""
    made = Job(make=NET.maker, make_task=NET.task, recipe=recipe).architecture()
    assert type(made) is (Depthwise if small else NET.maker)


def test_students_are_found_in_a_recipe_file(tmp_path):
    (tmp_path / "recipe.yaml").write_text("stages: [student: {network: 'tests.laws.tiny_nets:Depthwise'}, finetune]\n")
    job = Job(make=NET.maker, make_task=NET.task, recipe=str(tmp_path / "recipe.yaml"))
    assert type(job.architecture()) is Depthwise


def test_stated_score_is_checked_without_training(tmp_path):
    job = Job(make=NET.maker, make_task=NET.task, training={"epochs": 1}, text={"score": 50})
    describe = Job(make=NET.maker, make_task=NET.task, training={"epochs": 1}, text={"score": 5}, score=-500.0)
    assert job.trusted(NET.task(), tmp_path) and describe.original(NET.task(), tmp_path)
    assert len(list(tmp_path.glob("original*"))) == 1
    with pytest.raises(BadTask, match=r"score: the stated accuracy of the original network is -500 %"):
        describe.trusted(NET.task(), tmp_path)


@pytest.mark.parametrize("score", ["high", "true", "[9]"])
def test_stated_score_of_a_job_file_is_a_number(tmp_path, score):
    (tmp_path / "job.yaml").write_text(f"network: lenet_300_100\ntask: digits\nscore: {score}\n")
    with pytest.raises(BadRecipe, match="job: score must be a number, got"):
        read_job(str(tmp_path / "job.yaml"))


def test_trained_network_lies_in_memory_as_the_one_read_again(tmp_path):
    """Where a network lies otherwise its sums come out otherwise, and a resumed run would end with another file."""
    job = Job(make=NET.maker, make_task=NET.task, training={"epochs": 1})
    first, again = job.original(NET.task(), tmp_path), job.original(NET.task(), tmp_path)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(one.stride() == other.stride() for one, other in pairs)


def test_python_file_is_a_job_and_its_bundle_is_verified_in_a_fresh_process(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import cortado\nfrom cortado.tasks.digits import task\nfrom cortado.nets.digits import digits_net\n\n\n"
        "def job():\n    import torch\n    torch.manual_seed(3)\n    return digits_net().eval(), task()\n"
    )
    job = read_job(f"{tmp_path}/mine.py")
    assert isinstance(job.make(), nn.Module) and job.make_task().name == "digits"
    words, out = [sys.executable, "-c", "from cortado.cli import main; main()"], str(tmp_path / "run")
    compress = ["compress", f"{tmp_path}/mine.py", "--recipe", "quantize/weights bits=8", "--out", out]
    for more in (compress, ["verify", out]):
        done = subprocess.run([*words, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_can_be_read_to_the_last_key(path):
    job = read_job(str(path))
    assert (
        isinstance(job.make(), nn.Module)
        and (job.recipe is None or read_recipe(job.recipe).stages)
        and len(read_limits(job.limits)) == len(job.limits)
    )
    if job.training:
        make_stage("finetune", job.training, "train")
