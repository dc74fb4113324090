"""Kills: a run that is killed goes on and ends with the same files; moments at which it hurts most are tried one by one."""

import json

import pytest

from cortado.engine.bundle import check_bundle
from tests.fresh import READY, fresh

CHILD = """
import os, signal, sys
from click.testing import CliRunner
import tests.test_kills  # what a run imports: once here, not in every fork
from cortado.cli import main
from cortado.methods.finetune import Finetune

swap, apply, kinds = os.replace, Finetune.apply, {}

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def run(folder, moment):
    # In a fork, as autograd has not been used here: an import costs more than the run.
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kind, place = moment
    def counted(source, target):
        kinds["writes"] = kinds.get("writes", 0) + 1
        if kind == "before" and kinds["writes"] == place:
            killed()
        swap(source, target)
        if kind == "after" and kinds["writes"] == place:
            killed()
    def trained(self, view, task):
        kinds["trainings"] = kinds.get("trainings", 0) + 1
        if kind == "training" and kinds["trainings"] == place:
            killed()
        apply(self, view, task)
    os.replace, Finetune.apply = counted, trained
    words = ["compress", "job.yaml", "--out", folder, "--resume"]
    os._exit(CliRunner().invoke(main, words).exit_code)

print(run("whole", ("never", 0)), flush=True)
for number, moment in enumerate(eval(sys.argv[1])):
    print(*[run(f"run_{number}", one) for one in moment], run(f"run_{number}", ("never", 0)), flush=True)
"""
JOB = """
network: tests.laws.tiny_nets:mlp
task: tests.test_kills:task
train: {epochs: 2, lr: 1.0e-2}
recipe: [prune/weights: {keep: 0.5}, finetune: {epochs: 2}, share/kmeans: {bits: 3}]
"""
MOMENTS = [
    [("training", 1), ("before", 1)],
    [("after", 1), ("after", 1), ("before", 2)],
    [("training", 2), ("training", 1), ("after", 1)],
    [("before", 12), ("after", 9)],
]
"""Of each run, one kill after another: in a training, before or after a file gets its name, in the bundle."""


def task(seed=0):
    """A job file's task."""
    from tests.laws.tiny_nets import BY_NAME

    return BY_NAME["mlp"].task()


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder with all runs, and what each start of them came to."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "job.yaml").write_text(JOB)
    done = fresh(CHILD, repr(MOMENTS), imports=READY, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def test_every_kill_hit_and_every_run_ended(ended):
    _, codes = ended
    assert codes == [[0], *([-9] * len(kills) + [0] for kills in MOMENTS)]


@pytest.mark.parametrize("number", range(len(MOMENTS)))
def test_killed_run_ends_with_the_files_of_one_that_was_not(ended, number):
    folder, _ = ended
    whole, killed = folder / "whole", folder / f"run_{number}"
    check_bundle(killed)
    assert (killed / "net.cortado").read_bytes() == (whole / "net.cortado").read_bytes()
    for path in [*whole.glob("stages/*.cortado"), *whole.glob("original_*")]:
        assert (killed / path.relative_to(whole)).read_bytes() == path.read_bytes()
    describe = [json.loads((one / "report.json").read_text()) for one in (whole, killed)]
    assert (
        len({json.dumps({**one, "stages": [{**row, "seconds": 0} for row in one["stages"]]}) for one in describe}) == 1
    )
    assert not list(killed.rglob(".*"))
