"""Trial search: fronts and limits, the same trials from the same seed, several processes on one study, and killed ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cortado.errors import BadFile, BadNetwork, BadValue, MissingPackage
from cortado.planner.search.trial_search import search
from cortado.planner.search.trials import NOTE, SearchGoal, Trial
from cortado.task.limits import read_limits
from tests.laws.tiny_nets import BY_NAME

ROOT = Path(__file__).parents[3]
NET = BY_NAME["mlp"]
RECIPE = "prune/weights keep=0.2..0.9 | quantize/weights bits=2..8 | finetune epochs=1 lr=1e-4..1e-1"
NURSERY = """
import json, os, signal, sys, time, traceback
from pathlib import Path
import torch._dynamo  # an optimizer imports it: once here, not in every fork
from cortado.file import mix
from cortado.methods.finetune import Finetune
from cortado.native.build import native_state
from cortado.planner.search import study
from cortado.planner.search.trial_search import search
from tests.laws.tiny_nets import BY_NAME

torch.set_num_threads(1)
native_state()
study.HEARTBEAT, study.GRACE = 1, 3
mix.FEW = 0  # as for the tests of this room
plain_apply, calls = Finetune.apply, []

def searched(folder, trials, hang, recipe, together, **_):
    def apply(self, view, task):
        calls.append(1)
        Path(folder, f"trains.{os.getpid()}").touch()
        while len(list(Path(folder).glob("trains.*"))) < together:
            time.sleep(0.02)
        if len(calls) == hang:
            Path(folder, "hangs").touch()
            time.sleep(600)
        time.sleep(0.05)
        plain_apply(self, view, task)

    Finetune.apply = apply
    net = BY_NAME["mlp"]
    found = search(net.make(), net.task(), recipe, trials=trials, folder=folder, resume=True)
    return [len(calls), found.best.number]

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            said = searched(**order)
        except BaseException:
            said = traceback.format_exc()
        Path(order["answer"] + ".part").write_text(json.dumps(said))
        os.replace(order["answer"] + ".part", order["answer"])
        os._exit(0)
    print(child, flush=True)
"""
"""Forks a process for each search that it is told of; all imports are done once."""


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")


def searched(folder, *limits, recipe=RECIPE, trials=6, **more):
    return search(NET.make(), NET.task(), recipe, limits, trials=trials, folder=folder, **more)


@dataclass
class Child:
    """A search in a process of its own."""

    pid: int
    answer: Path

    def lives(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def hangs_in(self, folder):
        """Wait until it has come to the training in which it hangs."""
        while not (folder / "hangs").exists():
            assert self.lives(), self.said()
            time.sleep(0.02)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        while self.lives():
            time.sleep(0.01)

    def said(self):
        """The trainings that it ran and its best trial."""
        end = time.monotonic() + 120
        while not self.answer.exists():
            assert self.lives() or self.answer.exists(), "it ended without a word"
            assert time.monotonic() < end, "it does not end"
            time.sleep(0.02)
        return json.loads(self.answer.read_text())


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    """Starts a search in a process of its own, which hangs in its training number `hang`.

    Its first training waits until so many processes train `together`, however late one of them starts.
    """
    pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    answers = tmp_path_factory.mktemp("answers")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY], cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def started(folder, trials, hang=0, together=1):
        answer = answers / str(len(children))
        order = {"folder": str(folder), "trials": trials, "hang": hang, "recipe": RECIPE, "answer": str(answer)}
        order["together"] = together
        nursery.stdin.write(json.dumps(order) + "\n")
        nursery.stdin.flush()
        children.append(Child(int(nursery.stdout.readline()), answer))
        return children[-1]

    children = []
    yield started
    for one in children:
        if one.lives():
            one.kill()
    nursery.stdin.close()
    nursery.stdout.close()
    nursery.wait()


def points(found):
    return [(one.number, one.point, one.size_bytes, one.score) for one in found.trials]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Ten trials of one process that nobody disturbed."""
    pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    return searched(tmp_path_factory.mktemp("alone"), trials=10)


@pytest.fixture(scope="module")
def four_of_a_search(tmp_path_factory):
    """A folder with the first four trials of the same search."""
    pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    folder = tmp_path_factory.mktemp("four")
    searched(folder, trials=4)
    return folder


@pytest.fixture
def four(four_of_a_search, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(four_of_a_search, tmp_path / "four"))


def test_same_seed_gives_the_same_trials_and_another_one_others(alone, four, tmp_path):
    again = searched(four, trials=10, resume=True)
    assert points(again) == points(alone) and again.best.number == alone.best.number
    other = search(NET.make(), replace(NET.task(), seed=1), RECIPE, trials=2, folder=tmp_path / "other")
    assert all(one.point != two.point for one, two in zip(other.trials, alone.trials[:2], strict=True))
    assert len({json.dumps(one.point) for one in alone.trials}) == 10


def test_front_is_what_nothing_beats_in_both(alone):
    pairs = [(one.size_bytes, -one.score) for one in alone.trials]
    wanted = {pair for pair in pairs if not any(a <= pair[0] and b <= pair[1] and (a, b) != pair for a, b in pairs)}
    assert {(one.size_bytes, -one.score) for one in alone.front} == wanted
    assert alone.best.score == max(one.score for one in alone.trials)
    assert "<- taken" in alone.text() and alone.text().count("met") == 10


def test_a_trial_is_the_run_of_its_recipe(alone):
    from cortado.engine.compress import compress

    one = alone.trials[3]
    _, report = compress(NET.make(), NET.task(), one.recipe)
    assert (report.size_bytes, report.stages[-1].score) == (one.size_bytes, one.score)


def test_limit_of_size_is_kept_and_searched_within(optuna, alone, tmp_path):
    sizes = sorted(one.size_bytes for one in alone.trials)
    limit = sizes[3]
    found = searched(tmp_path, f"size <= {limit} B", trials=16)
    assert found.report.met and found.best.size_bytes <= limit
    kept = [one for one in found.trials if one.size_bytes <= limit]
    assert found.best.score == max(one.score for one in kept) and all(one.keeps_all for one in kept)
    assert not any(one.keeps_all for one in found.trials if one not in kept)
    # What was learned: after the random beginning more trials keep the limit than a quarter, which chance alone gives.
    assert sum(one.keeps_all for one in found.trials[8:]) >= 4


def test_limit_of_score_gives_the_smallest_that_keeps_it(optuna, tmp_path):
    found = searched(tmp_path, "score >= -10 %", trials=6)
    original = found.report.original_validation
    # Trials that meet the limit by less than its standard error are not taken.
    kept = [one for one in found.trials if one.keeps_all]
    assert kept and found.best.size_bytes == min(one.size_bytes for one in kept)
    assert all(one.score >= original - 10 for one in kept)
    assert not any(one.score >= original - 10 for one in found.trials if not one.keeps_all and not one.narrowly)


def test_limits_that_nothing_keeps_give_the_closest(optuna, tmp_path):
    found = searched(tmp_path, "size <= 10 B", trials=4)
    assert not found.report.met and found.best.size_bytes == min(one.size_bytes for one in found.trials)


def test_killed_process_continues_as_if_nothing_had_been(alone, four, child, monkeypatch):
    begun = child(four, 10, hang=5)
    begun.hangs_in(four)
    begun.kill()
    stages = sorted(path.name for path in (four / "trials/009/stages").glob("*.cortado"))
    noted = json.loads((four / "trials/009" / NOTE).read_text())
    assert stages == ["01.cortado", "02.cortado"] and noted["size_bytes"] == 0, "it was begun, and came to no end"
    monkeypatch.setattr("cortado.planner.search.study.GRACE", 3)
    time.sleep(4.5)
    assert points(searched(four, trials=10, resume=True)) == points(alone)


@pytest.mark.parametrize(
    ("error", "trials"),
    [(KeyboardInterrupt, 10), (RuntimeError, 6), (OSError(28, "No space left on device"), 6)],
)
def test_trial_that_was_broken_off_is_taken_up_at_once(alone, four, monkeypatch, error, trials):
    """Whether by the user, by a defect or by the system: it is no refused trial, and the study goes on as if nothing had been."""

    def broken(*_, **__):
        raise error

    with monkeypatch.context() as patch, pytest.raises(BaseException):  # noqa: B017 - each error comes out in its own way
        patch.setattr("cortado.planner.search.engine.compress_within", broken)
        searched(four, trials=5, resume=True)
    assert points(searched(four, trials=trials, resume=True)) == points(alone)[:trials]


def test_trial_of_a_dead_process_is_run_by_another(tmp_path, child):
    begun = child(tmp_path, 3, hang=3)
    begun.hangs_in(tmp_path)
    other = child(tmp_path, 3)
    time.sleep(1)
    begun.kill()
    assert other.said()[0] == 1, "it had nothing to do but the dead one's trial"


def test_two_processes_share_one_study(tmp_path, child):
    both = [child(tmp_path, 8, together=2) for _ in range(2)]
    shares, best = zip(*[one.said() for one in both], strict=True)
    assert sum(shares) == 8 and min(shares) > 0, "each trial is run once, by one of the two"
    assert best[0] == best[1], "both end with the same best trial"
    found = searched(tmp_path, trials=8, resume=True)
    assert [one.number for one in found.trials] == list(range(1, 9))
    assert len({json.dumps(one.point) for one in found.trials}) == 8


def test_more_trials_go_on_from_those_there_are(alone, four):
    with pytest.raises(BadValue, match="already holds trials"):
        searched(four, trials=10)
    assert points(searched(four, trials=5, resume=True)) == points(alone)[:5]
    with pytest.raises(BadValue, match="holds a search with another recipe"):
        searched(four, recipe="quantize/weights bits=2..8", resume=True)
    with pytest.raises(BadValue, match="another goal"):
        searched(four, "size <= 1 KB", resume=True)


def test_what_cannot_be_carried_out_is_a_refused_trial(optuna, tmp_path):
    recipe = "prune/weights keep=1.0,0.5 | finetune epochs=0.1"
    found = searched(tmp_path, recipe=recipe, trials=5)
    refused = [one for one in found.trials if one.failed]
    assert refused and all(
        one.point["1 prune/weights keep"] == 1.0 and "it needs more entries alive" in one.failed for one in refused
    )
    assert (
        "refused: " in found.text()
        and found.best not in refused
        and not set(map(id, refused)) & set(map(id, found.front))
    )
    with pytest.raises(BadNetwork, match="none of 3 trials succeeded"):
        searched(tmp_path / "none", recipe="prune/weights keep=1 by=[magnitude, random]", trials=3)


def test_no_trial_looks_at_the_test_result(optuna, tmp_path, monkeypatch):
    import cortado.planner.search.engine as module

    seen, original = [], module.compress_within

    def watched(network, task, *rest, **more):
        seen.append(task.test is task.validation)
        return original(network, task, *rest, **more)

    monkeypatch.setattr(module, "compress_within", watched)
    searched(tmp_path, trials=3)
    assert seen == [True, True, True, False]


def test_time_limit_ends_the_trials(optuna, tmp_path):
    found = search(NET.make(), NET.task(), RECIPE, time_limit="1 ms", folder=tmp_path)
    assert len(found.trials) == 1
    with pytest.raises(BadValue, match="allows nothing"):
        search(NET.make(), NET.task(), RECIPE, time_limit="0 s", folder=tmp_path / "new")


@pytest.mark.parametrize(
    ("more", "says"),
    [({"minimise": "latency"}, "latency needs a runtime. Name one"), ({"minimise": "joy"}, "got 'joy'"), ({"trials": 0}, "trials must be 1 or more")],
)  # fmt: skip
def test_goals_that_say_nothing_are_refused(tmp_path, more, says):
    with pytest.raises(BadValue, match=says):
        searched(tmp_path, **more)


def test_missing_package_is_said_in_words(tmp_path, no_optuna):
    with pytest.raises(MissingPackage, match=r"optuna is not installed. Run pip install -e '.\[search\]'"):
        searched(tmp_path)


def test_search_needs_no_locks_of_the_operating_system(optuna, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert len(searched(tmp_path, trials=2).trials) == 2


def test_damaged_note_says_what_to_do(four):
    note = four / "trials/002" / NOTE
    note.write_text("{")
    with pytest.raises(BadFile, match="002/trial.json is damaged .* Delete its folder"):
        searched(four, trials=4, resume=True)
    note.unlink()
    with pytest.raises(BadFile, match="002/trial.json is missing"):
        searched(four, trials=4, resume=True)


def test_front_goes_by_the_direction_of_the_score():
    tried = [
        Trial({}, "", size, score, number=number) for number, size, score in ((1, 10, 2.0), (2, 20, 1.0), (3, 30, 3.0))
    ]
    assert [one.number for one in SearchGoal((), "size", 1).front(tried)] == [1, 3]
    assert [one.number for one in SearchGoal((), "size", -1).front(tried)] == [1, 2]
    (limit,) = read_limits(["size <= 15 B"])
    bound = [replace(one, over={limit.text: one.size_bytes / 15 - 1}) for one in tried]
    assert [one.number for one in SearchGoal((limit,), "size", 1).front(bound)] == [1]


def test_process_taken_for_dead_gives_up_its_trial(optuna, tmp_path):
    """A machine that slept: the trial has failed when its result is told, and waits to be run again."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    from cortado.planner.search.ranges import Range
    from cortado.planner.search.study import Study, quiet_optuna

    study, turns = Study(tmp_path, [Range("a", 0.0, 1.0)], ["minimize"], {}, 0), []

    def objective(turn, values):
        turns.append((turn, values["a"]))
        if len(turns) == 1:
            with quiet_optuna():
                (mine,) = study.found()
                study.study.tell(mine.number, state=optuna.trial.TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback()(study.study, mine)
        return [values["a"]], {}, 0.0

    study.carry_out(2, objective)
    assert study.ended() == [] and study.open(1) and study.under_way()
    while study.open(2):
        study.carry_out(2, objective)
    assert turns[0] == turns[1] and turns[2][0] == 2 and study.ended() == [1, 2]


def test_no_more_trials_are_carried_out_than_were_asked_for(optuna, tmp_path):
    """Where several processes have drawn at once, the last ones to do so carry nothing out."""
    from cortado.planner.search.ranges import Range
    from cortado.planner.search.study import Study

    study, turns = Study(tmp_path, [Range("a", 0.0, 1.0)], ["minimize"], {}, 0), []
    for _ in range(4):
        study.carry_out(2, lambda turn, values: (turns.append(turn), ([values["a"]], {}, 0.0))[1])
    assert turns == [1, 2] and study.ended() == [1, 2] and not study.open(2) and study.open(3)
    study.carry_out(3, lambda turn, values: (turns.append(turn), ([values["a"]], {}, 0.0))[1])
    assert turns[-1] == 3
