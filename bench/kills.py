"""kills: runs killed at random moments, again and again; each goes on with --resume and ends as one never interrupted.

Three kinds of run on digits, all as the command line starts them, which train the original network first. They run in forks of
this process, so that no kill is wasted on imports, and end by SIGKILL at a moment drawn again each time; after one to six
kills a run may end by itself.

recipe: five stages on the digits network. Compared with an uninterrupted run: the file byte for byte, and the report but
for its seconds.
planner: the same network with narrower layers, no recipe, and a budget of seconds, so what is tried depends on the clock
and on where the run was killed. Compared is what does not: (a) every trial that was finished at a kill is there at the end,
with the same recipe, bytes and score; (b) the same sequence of recipes, tried in an empty folder without interruption, gives
the same trials, the same choice among them, the same file byte for byte and the same report but for its seconds.
latency: the same network, `--minimise latency`: shapes are cut, exported and timed before trials begin. Times differ from run to
run, and what is tried with them; compared is (a), and that every shape that was timed at a kill is there at the end, with its
time. The bundle is whole and its file is that of its trial.
All: whatever was kept at a kill (stages, the original network) has the same bytes at the end; at every kill each file with
a name of its own can be read to its last byte; at the end no partial file is left.
"""

import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import cortado
from bench.kept import kept
from bench.result import row
from cortado.cli import main
from cortado.engine.bundle import FILE, SUMS, check_bundle
from cortado.engine.recipe import known_methods
from cortado.errors import CortadoError
from cortado.file.artifact import load
from cortado.nets.digits import DigitsNet, digits_net
from cortado.network.view import View
from cortado.planner.search.trials import Trial, note
from cortado.tasks import digits

SEED, KILLS, MOST_KILLS = 11, {"recipe": 34, "planner": 16, "latency": 12}, 6
JOB = {"network": "digits_net", "task": "digits", "train": {"epochs": 4, "lr": 2e-3}, "limits": ["score >= -3 %"]}
RECIPE = [
    {"prune/weights": {"keep": 0.4}}, "match_moments", {"finetune": {"epochs": 3}}, {"share/kmeans": {"bits": 4}},
    {"quantize/weights": {"where": "*.bias", "bits": 8, "per": "tensor"}},
]  # fmt: skip
BUDGET = "30 s"
PATIENCE_S = 600.0


def narrow_net() -> nn.Module:
    """The digits network with 4, 8 and 16 channels: what it costs to foresee plans grows with the weights."""
    net = DigitsNet()
    net.conv1, net.conv2, net.conv3 = (nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise((1, 4, 8, 16)))
    net.bn1, net.bn2, net.bn3 = (nn.BatchNorm2d(count) for count in (4, 8, 16))
    net.linear = nn.Linear(64, 10)
    return net


@dataclass
class Killed:
    """What became of one run."""

    kills: int = 0
    same_file: bool = False
    same_report: bool = False
    damage: list[str] = field(default_factory=list)
    trials: int = 0
    landed: list[str] = field(default_factory=list)


def run_child(
    folder: Path, kind: str, budget: str = BUDGET, kill_after: float | None = None
) -> tuple[bool, float, str]:
    """The command line in a fork: whether it ended by itself, its seconds, and what was wrong ("" for nothing)."""
    words = ["compress", str(folder / "job.yaml"), "--out", str(folder / "out"), "--resume"]
    words += [] if kind == "recipe" else ["--time-limit", budget]
    words += ["--minimise", "latency", "--measure-in", "onnxruntime"] if kind == "latency" else []
    log, start = folder / "log.txt", time.perf_counter()
    child = os.fork()
    if not child:
        status = 99
        try:
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, 1)
            os.dup2(target, 2)
            main(words, standalone_mode=True)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 99
        except BaseException as error:  # noqa: BLE001 - whatever it is, it goes into the log
            os.write(2, repr(error).encode())
        finally:
            os._exit(status)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        spent = time.perf_counter() - start
        if done:
            code = os.waitstatus_to_exitcode(status)
            return True, spent, "" if code in (0, 3) else f"status {code}: {log.read_text()[-300:]}"
        if spent > (PATIENCE_S if kill_after is None else kill_after):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return kill_after is None, spent, "it hangs" if kill_after is None else ""
        time.sleep(0.002)


def started(folder: Path, kind: str) -> Path:
    """A folder with the job in it."""
    folder.mkdir(parents=True)
    job = {**JOB, **({"recipe": RECIPE} if kind == "recipe" else {"network": "bench.kills:narrow_net"})}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder


def files(folder: Path) -> list[Path]:
    """Files with a name of their own; what is being written begins with a dot."""
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in every if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def damaged(out: Path) -> list[str]:
    """The files that cannot be read to their end."""
    found = []
    if (out / SUMS).exists():
        try:
            check_bundle(out)
        except CortadoError as error:
            found.append(str(error))
    for path in files(out):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".cortado":
                load(path, digits_net if (out / "stages").exists() else narrow_net)
        except Exception as error:  # noqa: BLE001 - whatever it is, the file is damaged
            found.append(f"{path.relative_to(out)}: {type(error).__name__}")
    return found


def keepsakes(out: Path) -> dict[str, str]:
    """What may not change any more: kept stages and the original network, by a sum of their bytes."""
    lasting = [path for path in files(out) if path.parent.name == "stages" or path.suffix == ".safetensors"]
    return {str(path.relative_to(out)): blake2b(path.read_bytes()).hexdigest() for path in lasting}


def finished_trials(out: Path) -> list[dict[str, Any]]:
    """Recipe, bytes and score of the planner's finished trials."""
    rows = [json.loads(path.read_text()) for path in sorted(out.glob("trials/*/trial.json"))]
    return [{key: one[key] for key in ("recipe", "size_bytes", "score")} for one in rows if one["size_bytes"]]


def timed(out: Path) -> list[dict[str, Any]]:
    """The shapes that were timed, as they are kept."""
    path = out / "shapes.json"
    return list(json.loads(path.read_text())["body"]["found"]) if path.exists() else []


def report_of(out: Path) -> dict[str, Any]:
    """The report without its seconds."""
    describe = json.loads((out / "report.json").read_text())
    return {**describe, "stages": [{**stage, "seconds": 0} for stage in describe["stages"]]}


def place_of(out: Path, kind: str) -> str:
    """Where a kill landed, by what is there already."""
    if not any(path.suffix == ".safetensors" for path in files(out)):
        return "training the original network"
    if kind != "recipe":
        return f"after {len(finished_trials(out))} trials" + (
            f" and {len(timed(out))} shapes" if kind == "latency" else ""
        )
    stages = len(list((out / "stages").glob("*.json")))
    return f"in stage {stages + 1}" if stages < len(RECIPE) else "test and bundle"


def killed_run(folder: Path, kind: str, seconds: float, dice: random.Random) -> Killed:
    """One run, killed one to four times, and then left to its end and compared."""
    run, out = Killed(), started(folder, kind) / "out"
    lasting: dict[str, str] = {}
    done, shapes = list[dict[str, Any]](), list[dict[str, Any]]()
    for _ in range(dice.randint(1, MOST_KILLS)):
        ended, _, wrong = run_child(folder, kind, kill_after=dice.uniform(0, seconds))
        if ended:
            run.damage += [wrong] if wrong else []
            break
        run.kills += 1
        run.landed.append(place_of(out, kind))
        run.damage += [*damaged(out), *changed(lasting, keepsakes(out)), *lost(done, finished_trials(out))]
        run.damage += lost(shapes, timed(out), "shape")
        lasting, done, shapes = keepsakes(out), finished_trials(out), timed(out)
    _, _, wrong = run_child(folder, kind)
    run.damage += [wrong] if wrong else []
    run.damage += [*damaged(out), *changed(lasting, keepsakes(out)), *lost(done, finished_trials(out))]
    run.damage += lost(shapes, timed(out), "shape")
    run.damage += [f"left: {path.name}" for path in folder.rglob(".*.part")]
    run.trials = len(finished_trials(out))
    return run


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"{name} is {'another' if name in now else 'gone'}" for name, mark in before.items() if now.get(name) != mark
    ]


def lost(before: list[dict[str, Any]], now: list[dict[str, Any]], what: str = "trial") -> list[str]:
    return [f"{what} {number} is lost or another" for number, one in enumerate(before, 1) if one not in now]


def uninterrupted(folder: Path, kind: str, recipes: list[Any] | None = None) -> Path:
    """The same without a kill; the planner's with these recipes, in order, and none of its own.  Notes its seconds."""
    out = started(folder, kind) / "out"
    if recipes is not None:
        for number, recipe in enumerate(recipes, 1):
            note(out / "trials" / f"{number:03}", Trial(recipe, number=number))
    _, seconds, wrong = run_child(folder, kind, "1 ms" if recipes is not None else BUDGET)
    if wrong:
        raise SystemExit(f"bench: the uninterrupted run ended with {wrong}")
    (folder / "seconds").write_text(str(seconds))
    return out


def compared(run: Killed, out: Path, other: Path) -> None:
    """Whether two runs ended alike."""
    run.same_file = (out / FILE).read_bytes() == (other / FILE).read_bytes()
    run.same_report = report_of(out) == report_of(other)
    if finished_trials(out) != finished_trials(other):
        run.damage.append("trials came out otherwise without interruption")


def code_sum() -> str:
    """Results of other code do not count."""
    sums = blake2b(digest_size=8)
    for path in sorted(Path(cortado.__file__).parent.rglob("*.py")):
        sums.update(path.read_bytes())
    return sums.hexdigest()


def one(kind: str, number: int, reference: Path) -> dict[str, Any]:
    """A run of this kind, beside the uninterrupted one, which is kept in `reference`."""
    dice = random.Random(SEED * 1_000_003 + number)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not (reference / kind).exists():
            uninterrupted(reference / kind, kind)
        other: Path | None = reference / kind / "out"
        seconds = float((reference / kind / "seconds").read_text())
        run = killed_run(folder / "killed", kind, seconds, dice)
        out = folder / "killed" / "out"
        if kind == "planner":
            recipes = [trial["recipe"] for trial in finished_trials(out)]
            other = uninterrupted(folder / "again", kind, recipes)
        elif kind == "latency":
            taken = {path.read_bytes() for path in (out / "trials").rglob("*.cortado")}
            run.same_file = (out / FILE).read_bytes() in taken
            other = None
        if other is not None:
            compared(run, out, other)
    print(f"{kind} {number}: {run.kills} kills, {', '.join(run.landed)}; {run}", file=sys.stderr, flush=True)
    return asdict(run)


def warm() -> None:
    """What a run imports on its way is imported here, once for all forks.  No gradient: autograd's threads do not fork."""
    for name in ("sklearn.datasets", "torch._dynamo", "torch.export", "torch.func", "torch.nn.utils.stateless"):
        importlib.import_module(name)
    known_methods()
    assert View(digits_net().eval(), digits_net().eval(), digits.task().example).groups is not None


def runs_of(kind: str, mark: str, reference: Path) -> list[dict[str, Any]]:
    """Runs until the kills of this kind are used up."""
    runs: list[dict[str, Any]] = []
    while sum(one_run["kills"] for one_run in runs) < KILLS[kind]:
        settings = [mark, SEED, len(runs), JOB, RECIPE, BUDGET, torch.__version__]
        runs.append(kept(f"kills/{kind}_{len(runs)}", settings, lambda: one(kind, len(runs), reference)))
    return runs


def run() -> list[dict[str, Any]]:
    """Runs of both kinds until each has had its half of the kills."""
    torch.set_num_threads(1)
    warm()
    rows, mark, damage = [], code_sum(), list[str]()
    with tempfile.TemporaryDirectory() as name:
        found = {kind: runs_of(kind, mark, Path(name)) for kind in KILLS}
    for kind, runs in found.items():
        damage += [text for one_run in runs for text in one_run["damage"]]
        places = Counter(place for one_run in runs for place in one_run["landed"])
        kills, count = sum(one_run["kills"] for one_run in runs), len(runs)
        alike = [sum(one_run[key] for one_run in runs) for key in ("same_file", "same_report")]
        rows += [
            row(f"{kind}: kills", kills, "", KILLS[kind], "higher", places=dict(places)),
            row(f"{kind}: runs that were killed", count, ""),
        ]
        if kind == "latency":
            rows.append(
                row("latency: runs that end with the file of one of their trials", alike[0], "", count, "higher")
            )
        else:
            rows += [
                row(f"{kind}: runs that end with the file of the uninterrupted one", alike[0], "", count, "higher"),
                row(f"{kind}: runs that end with its report, seconds aside", alike[1], "", count, "higher"),
            ]
        if kind == "planner":
            rows.append(row("planner: trials, each as without interruption", sum(r["trials"] for r in runs), ""))
    return [
        *rows,
        row(
            "files and trials lost, damaged, changed or left half written",
            len(damage),
            "",
            0,
            what_damage=damage,
        ),
    ]
