"""Compress: run a recipe stage by stage, measure and store each stage, and test the result."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.engine.fingerprints import bytes_of, file_sum, identity, json_data, sum_of_data
from cortado.engine.options import RunOptions
from cortado.engine.own_parts import names_of, parts_named
from cortado.engine.recipe import Recipe, read_recipe, stage_data
from cortado.engine.stage import State, apply_stage, begin, cuts_from, loses_moments
from cortado.errors import BadFile, BadNetwork, CortadoError, Failed, Stopped, describe
from cortado.file.accounting import accounts
from cortado.file.artifact import decode, encode
from cortado.file.entries import entries_of, fingerprint
from cortado.file.whole import make_folder, read_bytes, write_whole
from cortado.network.compare.rounded import rounded_layers
from cortado.network.profile.execution import execution_shares
from cortado.network.view import working_copy
from cortado.network.weight import parameter_places
from cortado.parts.forms.attach import part_kinds
from cortado.parts.part import Part
from cortado.progress import Progress
from cortado.quantities import size_text
from cortado.report.pages.words import stage_text
from cortado.report.report import Compared, Line, Report, Stage, environment, notes_of, paired_interval
from cortado.running.brought import accept
from cortado.runtimes.compare import RUNS_OVER, runs_over
from cortado.runtimes.speed import with_speed
from cortado.task.disjoint import check_disjoint
from cortado.task.limits import Limit
from cortado.task.measure import check_calibration, mean_score, reference_score, scores
from cortado.task.task import Task

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
    """Return a small copy of `network` made by `recipe`, and the report of all measurements.

    >>> small, report = cortado.compress(net, task, "prune/weights keep=0.5 | quantize/weights bits=4", limits=["size <= 1 MB"])
    >>> report.met
    True

    `recipe` is a Recipe, a list of methods, a YAML file or one line of text. The network itself is not changed. After each
    stage the file is written, read back and scored on the task's validation data; the test data are used once, at the end.
    With `folder`, finished stages are stored there, and `resume` continues after the last one. `forms` are your own
    classes of forms and blocks, needed to resume where they cannot be imported by name. For each of the `runtimes`
    ("onnxruntime") the exported file is scored and timed against the original's, for each of `batches` with `threads`.
    Raises BadNetwork, BadTask, BadRecipe, BadValue, NothingChanged, MissingPackage for a runtime that is not installed,
    OutputsDiffer for one whose outputs are not PyTorch's, Stopped on Ctrl-C, and Failed for any other error of a stage, the
    data or the disk. Finished stages stay in the folder.
    """
    options = RunOptions.read(
        limits, folder=folder, resume=resume, progress=progress, forms=forms, runtimes=runtimes, batches=batches,
        threads=threads,
    )  # fmt: skip
    made = compress_within(network, task, recipe, options)
    return made.network, made.report


@dataclass(frozen=True)
class Compressed:
    """The output of a run: the network, its report, its encoded file, and the folder with the measured files of each
    runtime (None without runtimes or without a folder)."""

    network: nn.Module
    report: Report
    body: bytes
    exported: Path | None = None


def compress_within(network: nn.Module, task: Task, recipe: Any, options: RunOptions) -> Compressed:
    """Run `compress` with parsed options and return everything it made."""
    brought = accept(network, "compress")
    options.check_score(task.metric)
    run = Run(
        working_copy(network, alias=True).eval(), task, read_recipe(recipe).for_blocks(options.channel_block), options
    )
    run.warnings += [*brought, *check_disjoint(task)]
    check_calibration(task)
    try:
        return run.all_stages()
    except KeyboardInterrupt:
        nothing = "No stage was finished." if options.folder else "Nothing was stored, as no folder was given."
        raise Stopped(f"compress: interrupted in stage {len(run.rows) + 1}. {run.kept_text() or nothing}") from None
    except CortadoError as error:
        raise type(error)(f"{error} {run.kept_text()}".rstrip()) from error
    except Exception as error:
        place = "the test" if len(run.rows) == len(run.recipe.stages) else f"stage {len(run.rows) + 1}"
        way_out = "Fix the cause and try again."
        raise Failed(f"compress: {place} ended with {describe(error)}. {way_out} {run.kept_text()}".rstrip()) from error


GROWS = 1.02
"""A file this many times as large as that of the stage before is noted."""


@dataclass
class Run:
    """One run of a recipe and its finished stages."""

    original: nn.Module
    task: Task
    recipe: Recipe
    options: RunOptions = field(default_factory=RunOptions)
    rows: list[Stage] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    used: set[type[Part]] = field(default_factory=set)

    def kept_text(self) -> str:
        """Return a sentence about the stages on disk; "" for none."""
        folder, count = self.options.folder, len(self.rows)
        return f"{count} finished stages are kept in {folder}; --resume continues." if folder and count else ""

    def all_stages(self) -> Compressed:
        original_validation = reference_score(self.original, self.task)
        state = self.resumed() if self.options.resume else begin(self.original, self.task.example)
        for number in range(len(self.rows), len(self.recipe.stages)):
            state = self.stage(state, number)
        report = self.report(state.network, original_validation)
        return Compressed(state.network, report, self.bodies[-1], self.options.exports)

    def stage(self, state: State, number: int) -> State:
        """Run a stage and continue from its decoded file, which checks the file and makes resumed runs identical."""
        stages, start = self.recipe.stages, time.perf_counter()
        method, following = stages[number], stages[number + 1] if number + 1 < len(stages) else None
        made = apply_stage(
            method, state, self.task, match_moments=self.recipe.match_moments, following=following, last=following is None,
            where=f"stage {number + 1} ({method.name()})", progress=self.options.progress,
        )  # fmt: skip
        body = encode(made.network, self.original)
        if self.rows and len(body) > GROWS * self.rows[-1].size_bytes:
            grown = f"The file grows from {size_text(self.rows[-1].size_bytes)} to {size_text(len(body))}."
            made = replace(made, notes=(*made.notes, grown))
        self.used |= part_kinds(made.network)
        made = replace(made, network=decode(body, self.original, [*self.used, *self.options.forms]))
        row = self.measured(made, number, len(body), time.perf_counter() - start)
        self.keep(number, body, row, made)
        self.rows.append(row)
        LOG.info(
            "stage %d of %d %s", number + 1, len(stages), stage_text(row, self.task.metric.name, self.task.metric.unit)
        )
        self.bodies.append(body)
        return made

    def measured(self, made: State, number: int, size_bytes: int, seconds: float) -> Stage:
        method, task = self.recipe.stages[number], self.task
        weights = [weight for weight in parameter_places(made.network) if len(weight.shape) >= 2]
        entries = sum(weight.shape.numel() for weight in weights)
        nonzero = sum(int(torch.count_nonzero(weight.dense())) for weight in weights) / max(1, entries)
        knobs = json_data(stage_data(method)[method.name()])
        score = mean_score(made.network, task.validation, task.metric, self.original)
        turn = self.recipe.rounds[number]
        return Stage(
            method.name(), knobs, score, size_bytes, nonzero, seconds, made.notes, round=turn, curves=made.curves
        )

    def report(self, network: nn.Module, original_validation: float) -> Report:
        task, options = self.task, self.options
        compared = test(self.original, network, task)
        original_bytes = sum(value.numel() * value.element_size() for value in self.original.state_dict().values())
        layers, drawn = accounts(network, self.original, self.bodies[-1])
        report = Report(
            task=task.name, network=type(self.original).__name__, metric_name=task.metric.name, metric_unit=task.metric.unit,
            higher_is_better=task.metric.higher_is_better, original_bytes=original_bytes, original_validation=original_validation,
            stages=tuple(self.rows), lines=lines_of(task, original_bytes, self.rows[-1].size_bytes, compared, options.limits),
            test=compared, layers=layers, pictures=drawn,
            warnings=(*self.warnings, *notes_of(self.rows), *([RUNS_OVER] if runs_over(network) else [])),
            recipe=json_data(self.recipe.as_data()),
            execution=execution_shares(network, (inputs for inputs, _ in task.test.batches(256))),
            seed=task.seed, environment=environment(), rounded=rounded_layers(self.original, network, task.validation),
        )  # fmt: skip
        own = list(self.used | set(options.forms))
        earlier = [partial(decode, body, self.original, own) for body in self.bodies[:-1]]
        return with_speed(
            report, self.original, network, task, options.speed, options.limits, options.progress, earlier, options.exports,
        )  # fmt: skip

    @cached_property
    def key(self) -> str:
        """Return a hash of everything a stage depends on: recipe, network with its values, task with its data.

        Test data are left out, so that a search can resume its best trial, which ran without them.
        """
        task, sums = self.task, blake2b(digest_size=16)
        sums.update(json.dumps(identity(self.recipe.as_data()), sort_keys=True).encode())
        sums.update(fingerprint(self.original, entries_of(self.original)))
        for value in self.original.state_dict().values():
            sums.update(bytes_of(value))
        sums.update(
            repr((task.name, task.seed, task.batch, identity(task.loss), identity(task.metric.functions))).encode()
        )
        for data in task.known_data:
            sums.update(sum_of_data(data))
        return sums.hexdigest()

    def base(self, number: int) -> Path:
        """Return the path of a stage's files, without the suffix."""
        assert self.options.folder is not None
        return self.options.folder / "stages" / f"{number + 1:02}"

    def keep(self, number: int, body: bytes, row: Stage, made: State) -> None:
        if self.options.folder is None:
            return
        base = self.base(number)
        make_folder(base.parent)
        write_whole(base.with_suffix(".cortado"), body)
        own = {"forms": names_of(self.used), **made.cuts_as_data()}
        note = {"key": self.key, "file": file_sum(body), "row": asdict(row), **own}
        write_whole(base.with_suffix(".json"), json.dumps(note, indent=1).encode())

    def resumed(self) -> State:
        """Return the state after the last finished stage of the same run, or before the first."""
        if self.options.folder is None:
            raise BadNetwork("compress: resume needs the folder of the interrupted run. Pass folder=...")
        state = begin(self.original, self.task.example)
        for number, method in enumerate(self.recipe.stages):
            base = self.base(number)
            if not base.with_suffix(".json").exists():
                break
            try:
                note = json.loads(base.with_suffix(".json").read_text(encoding="utf8"))
                other, row = note["key"] != self.key or "survivors" not in note, Stage(**note["row"])
                kept, survivors = cuts_from(note)
            except (ValueError, KeyError, TypeError) as error:
                raise BadFile(
                    f"compress: {base}.json is damaged ({error}). Delete the folder's stages and start again."
                ) from error
            if other:
                self.warnings.append(
                    f"stage {number + 1} in {self.options.folder} is from another run (recipe, network, data, seed or "
                    "version) and was run again"
                )
                break
            body = read_bytes(base.with_suffix(".cortado"))
            if note.get("file", file_sum(body)) != file_sum(body):
                raise BadFile(f"compress: {base}.cortado was altered. Delete the folder's stages and start again.")
            reference = state.network if loses_moments(method) else state.reference
            own = parts_named(note.get("forms", []), f"compress: {base}.json")
            made = decode(body, self.original, (*own, *self.options.forms))
            state = replace(state, network=made, reference=reference, kept=kept, survivors=survivors, fresh=False)
            self.rows.append(row)
            self.bodies.append(body)
        return state


def test(original: nn.Module, network: nn.Module, task: Task) -> Compared:
    """Compare both networks on the test data, with a paired interval."""
    before = scores(original, task.test, task.metric)
    after = scores(network, task.test, task.metric, original=original)
    return paired_interval(before, after, task.metric.scale)


def lines_of(
    task: Task, original_bytes: int, size_bytes: int, compared: Compared, limits: tuple[Limit, ...]
) -> tuple[Line, ...]:
    """Return the report's lines for size and score: original | compressed | limit | met."""
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
