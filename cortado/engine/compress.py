"""Compress: run a recipe stage by stage, measure in between, keep a checkpoint, and end with a test result."""

import copy
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.brought import accept
from cortado.engine.fingerprints import identity, json_data, matrices, picture, sum_of_data
from cortado.engine.recipe import Recipe, read, stage_data
from cortado.errors import BadFile, BadNetwork, CortadoError, Failed, NothingChanged, Stopped, describe
from cortado.file.accounting import layer_rows, pictures
from cortado.file.artifact import decode, encode
from cortado.file.whole import check_writable, make_folder, read_bytes, write_whole
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method
from cortado.network.compare.rounded import rounded_layers
from cortado.network.view import View, parameter_places, working_copy
from cortado.parts.part import Part
from cortado.progress import Progress, quiet
from cortado.report.pages.words import stage_text
from cortado.report.report import Compared, Line, Report, Stage, environment, notes_of, paired_interval
from cortado.runtimes.compare import RUNS_OVER, runs_over
from cortado.runtimes.speed import Speed, speed_wanted, with_speed
from cortado.task.disjoint import check_disjoint
from cortado.task.limits import Limit, check_unit, read_limits
from cortado.task.measure import check_calibration, mean_score, scores
from cortado.task.task import Task
from cortado.training.finalize import finalize

LOG = logging.getLogger(__name__)


def compress(
    network: nn.Module,
    task: Task,
    recipe: Any,
    *,
    limits: Sequence[str] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    forms: Sequence[type[Part]] = (),
    runtimes: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    threads: int = 1,
) -> tuple[nn.Module, Report]:
    """A small copy of `network` made by `recipe`, and the report of what was measured.

    >>> small, report = cortado.compress(net, task, "prune/weights keep=0.5 | quantize/weights bits=4", limits=["size <= 1 MB"])
    >>> report.met
    True

    `recipe` is a Recipe, a list of methods, a YAML file or one line of text. The network itself is never changed.
    After each stage the file is made, read back and scored on the task's validation data; the test data are used once,
    at the end. With `folder`, every finished stage is kept there, and `resume` goes on after the last one.
    `forms` are form classes of your own that a resumed run meets in its files. In each of the `runtimes` ("onnxruntime")
    the exported file is scored and, with so many threads and for each batch size, timed beside the original network's.
    Raises BadNetwork, BadTask, BadRecipe, BadValue, NothingChanged, MissingPackage for a runtime that is not installed,
    OutputsDiffer for one whose outputs are not PyTorch's; Stopped when the user interrupts; Failed for whatever else a
    stage, the data or the disk came upon. What was finished before is kept in the folder.
    """
    brought = accept(network, "compress")
    read_as = read_limits(limits)
    speed = speed_wanted(runtimes, read_as, batches, threads)
    check_unit(read_as, task.metric)
    if folder is not None:
        check_writable(Path(folder), "compress")
    run = Run(working_copy(network).eval(), task, read(recipe), read_as, folder, progress or quiet(), forms, speed)
    run.warnings += [*brought, *check_disjoint(task)]
    check_calibration(task)
    try:
        return run.all_stages(resume)
    except KeyboardInterrupt:
        kept = run.kept_text() or ("No stage was finished." if folder else "Nothing was kept: no folder was given.")
        raise Stopped(f"compress: interrupted in stage {len(run.rows) + 1}. {kept}") from None
    except CortadoError as error:
        raise type(error)(f"{error} {run.kept_text()}".rstrip()) from error
    except Exception as error:
        place = "the test result" if len(run.rows) == len(run.recipe.stages) else f"stage {len(run.rows) + 1}"
        way_out = "Mend what raised it, and try again."
        raise Failed(f"compress: {place} ended with {describe(error)}. {way_out} {run.kept_text()}".rstrip()) from error


@dataclass
class Run:
    """One run of a recipe."""

    original: nn.Module
    task: Task
    recipe: Recipe
    limits: tuple[Limit, ...]
    folder: str | Path | None
    progress: Progress
    forms: Sequence[type[Part]] = ()
    speed: Speed = field(default_factory=Speed)

    def __post_init__(self) -> None:
        self.rows: list[Stage] = []
        self.body: bytes | None = None
        self.bodies: list[bytes] = []
        self.used: set[type[Part]] = set(self.forms)
        self.warnings: list[str] = []
        self.reference: nn.Module | None = None
        self.kept: dict[str, torch.Tensor] = {}
        self.finished = 0

    def kept_text(self) -> str:
        """What of this run is on disk; "" for nothing."""
        return f"{self.finished} finished stages are kept in {self.folder}; --resume goes on." if self.finished else ""

    def all_stages(self, resume: bool) -> tuple[nn.Module, Report]:
        original_validation = mean_score(self.original, self.task.validation, self.task.metric)
        body = encode(self.original, self.original, "bits")
        network = decode(body, self.original)
        if resume:
            kept = self.resumed()
            network = network if kept is None else kept
        for number in range(len(self.rows), len(self.recipe.stages)):
            network = self.stage(network, number)
        return network, self.report(network, original_validation)

    def stage(self, network: nn.Module, number: int) -> nn.Module:
        method = self.recipe.stages[number]
        where = f"stage {number + 1} ({method.name()})"
        start, before, matmul_layers = time.perf_counter(), picture(network), matrices(network)
        if loses_moments(method):
            self.reference, self.kept = copy.deepcopy(network), {}
        try:
            view = self.view(network)
            method.apply(view, self.task)
        except CortadoError as error:
            raise type(error)(f"{where}: {error}") from error
        except Exception as error:
            raise Failed(
                f"{where}: it ended with {describe(error)}. Mend what raised it, or leave the stage out."
            ) from error
        check_changed(where, method, before, picture(network))
        following = self.recipe.stages[number + 1] if number + 1 < len(self.recipe.stages) else None
        due = self.recipe.match_moments and loses_moments(method) and not isinstance(following, MatchMoments)
        if due and matrices(network) != matmul_layers:
            MatchMoments().apply(view, self.task)
        if following is None:
            finalize(network)
        body = self.body = encode(network, self.original)
        # What goes on is what the file gives back: every stage is proved, and a resumed run takes the same way.
        used = {type(part) for part in network.modules() if isinstance(part, Part)}
        self.used |= used
        network = decode(body, self.original, [*used, *self.forms])
        self.bodies.append(body)
        self.rows.append(self.measured(network, method, len(body), time.perf_counter() - start, view.notes))
        place = f"stage {number + 1} of {len(self.recipe.stages)}"
        LOG.info("%s %s", place, stage_text(self.rows[-1], self.task.metric.name, self.task.metric.unit))
        self.keep(number, body)
        return network

    def view(self, network: nn.Module) -> View:
        return View(network, self.original, self.task.example, self.progress, self.reference, self.kept)

    def measured(self, network: nn.Module, method: Method, size_bytes: int, seconds: float, notes: list[str]) -> Stage:
        weights = [weight for weight in parameter_places(network) if len(weight.shape) >= 2]
        entries = sum(weight.shape.numel() for weight in weights)
        nonzero = sum(int(torch.count_nonzero(weight.dense())) for weight in weights) / max(1, entries)
        data = stage_data(method)
        knobs = next(iter(data.values())) if isinstance(data, dict) else {}
        score = mean_score(network, self.task.validation, self.task.metric, self.original)
        return Stage(method.name(), json_data(knobs), score, size_bytes, nonzero, seconds, tuple(notes))

    def report(self, network: nn.Module, original_validation: float) -> Report:
        task = self.task
        compared = test(self.original, network, task)
        original_bytes = sum(value.numel() * value.element_size() for value in self.original.state_dict().values())
        report = Report(
            task=task.name, network=type(self.original).__name__, metric_name=task.metric.name, metric_unit=task.metric.unit,
            higher_is_better=task.metric.higher_is_better, original_bytes=original_bytes, original_validation=original_validation,
            stages=tuple(self.rows), lines=lines_of(task, original_bytes, self.rows[-1].size_bytes, compared, self.limits),
            test=compared, layers=layer_rows(network, self.original, self.body), pictures=pictures(network, self.original),
            warnings=(*self.warnings, *notes_of(self.rows), *([RUNS_OVER] if runs_over(network) else [])),
            recipe=json_data(self.recipe.as_data()),
            seed=task.seed, environment=environment(), rounded=rounded_layers(self.original, network, task.validation),
        )  # fmt: skip
        earlier = [partial(decode, body, self.original, list(self.used)) for body in self.bodies[:-1]]
        return with_speed(report, self.original, network, task, self.speed, self.limits, self.progress, earlier)

    def key(self) -> str:
        """Stands for everything a stage's result depends on: recipe, network with its values, task with its data."""
        task, sums = self.task, blake2b(digest_size=16)
        sums.update(json.dumps(identity(self.recipe.as_data()), sort_keys=True).encode())
        sums.update(encode(self.original, self.original, "bits"))
        sums.update(repr((task.name, task.seed, task.batch, identity(task.loss), identity(task.metric.each))).encode())
        if task.metric.whole is not None:
            sums.update(repr(identity(task.metric.whole)).encode())
        for data in (task.train, task.validation, task.calibration):
            sums.update(sum_of_data(data))
        return sums.hexdigest()

    def keep(self, number: int, body: bytes) -> None:
        if self.folder is None:
            return
        folder = Path(self.folder) / "stages"
        make_folder(folder)
        if not hasattr(self, "made_key"):
            self.made_key = self.key()
        write_whole(folder / f"{number + 1:02}.cortado", body)
        kept = {path: rows.tolist() for path, rows in self.kept.items()}
        note = {"key": self.made_key, "file": file_sum(body), "row": asdict(self.rows[-1]), "kept": kept}
        write_whole(folder / f"{number + 1:02}.json", json.dumps(note, indent=1).encode())
        self.finished = number + 1

    def resumed(self) -> nn.Module | None:
        """The network after the last finished stage of the same run, or None when there is none."""
        if self.folder is None:
            raise BadNetwork("compress: resume needs the folder of the interrupted run. Pass folder=...")
        key, found = self.key(), None
        for number in range(len(self.recipe.stages)):
            base = Path(self.folder) / "stages" / f"{number + 1:02}"
            if not base.with_suffix(".json").exists():
                break
            try:
                note = json.loads(base.with_suffix(".json").read_text(encoding="utf8"))
                other, row = note["key"] != key or "kept" not in note, Stage(**note["row"])
                kept = {path: torch.tensor(rows) for path, rows in note.get("kept", {}).items()}
            except (ValueError, KeyError, TypeError) as error:
                raise BadFile(
                    f"compress: {base}.json is damaged ({error}). Delete the folder's stages and start again."
                ) from error
            if other:
                self.warnings.append(
                    f"stage {number + 1} in {self.folder} is of another run (recipe, network, data, seed or version): done again"
                )
                break
            self.rows.append(row)
            self.kept = kept
            if loses_moments(self.recipe.stages[number]):
                self.reference = found
            body = read_bytes(base.with_suffix(".cortado"))
            if note.get("file", file_sum(body)) != file_sum(body):
                raise BadFile(
                    f"compress: {base}.cortado is not what was kept. Delete the folder's stages and start again."
                )
            self.body, found = body, decode(body, self.original, self.forms)
            self.bodies.append(body)
            self.finished = number + 1
        return found


def file_sum(body: bytes) -> str:
    """Tells whether a kept file is the one that its note speaks of."""
    return blake2b(body, digest_size=16).hexdigest()


def loses_moments(method: Method) -> bool:
    """Whether `match_moments` gives back the moments of the network before this stage, until the next such stage."""
    return method.lossy and not method.trains


def check_changed(where: str, method: Method, before: tuple[bytes, bytes], after: tuple[bytes, bytes]) -> None:
    """A lossy method must change values, any other values or forms.  `match_moments` may find nothing to mend."""
    same = before[0] == after[0] if method.lossy else before == after
    if same and not isinstance(method, MatchMoments):
        raise NothingChanged(
            f"{where}: it changed nothing. Check its pattern (where: {method.where}) and its amounts, or leave the stage out."
        )


def test(original: nn.Module, network: nn.Module, task: Task) -> Compared:
    """Both networks on the test data, used for nothing else, with a paired interval."""
    before = scores(original, task.test, task.metric)
    after = scores(network, task.test, task.metric, original=original)
    return paired_interval(before, after, task.metric.scale)


def lines_of(
    task: Task, original_bytes: int, size_bytes: int, compared: Compared, limits: tuple[Limit, ...]
) -> tuple[Line, ...]:
    """plain | compressed | limit | met, one line for size and one for the score."""
    by_what = {limit.what: limit for limit in limits}
    sign = 1 if task.metric.higher_is_better else -1
    size, score = by_what.get("size"), by_what.get("score")
    kept_score = None
    if score is not None:
        kept_score = score.kept(
            sign * compared.compressed if score.relative else compared.compressed, sign * compared.original
        )
        if not task.metric.higher_is_better and not score.relative:
            kept_score = compared.compressed <= score.value
    kept_size = None if size is None else size.kept(size_bytes, original_bytes)
    size_text, score_text = (limit.text if limit else "" for limit in (size, score))
    return (
        Line("size of the file", "B", original_bytes, size_bytes, size_text, kept_size),
        Line(task.metric.name, task.metric.unit, compared.original, compared.compressed, score_text, kept_score),
    )
