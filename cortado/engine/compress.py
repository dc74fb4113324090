"""Compress: run a recipe stage by stage, measure and store each stage, and test the result."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.engine.fingerprints import json_data, sum_of_code, sum_of_run
from cortado.engine.options import RunOptions
from cortado.engine.own_parts import names_of, parts_named
from cortado.engine.recipe import Recipe, read_recipe, stage_data
from cortado.engine.stage import Cuts, State, apply_stage, begin, begin_again, cuts_from, loses_moments
from cortado.engine.stage_files import StageFiles
from cortado.errors import BadNetwork, CortadoError, Failed, Stopped, WrongNetwork, describe
from cortado.file.accounting import accounts
from cortado.file.artifact import decode, encode
from cortado.methods.method import Method
from cortado.methods.needs import Leaves
from cortado.native.build import missing_kernels
from cortado.network.compare.rounded import rounded_layers, rounded_paths
from cortado.network.profile.execution import execution_shares
from cortado.network.view import working_copy
from cortado.network.weight import parameter_places
from cortado.parts.forms.attach import part_kinds
from cortado.parts.part import Part
from cortado.progress import Progress
from cortado.quantities import size_text
from cortado.report.pages.words import stage_text
from cortado.report.record import notes_of
from cortado.report.report import Compared, Report, Stage, environment, paired_interval
from cortado.report.result_lines import limited_costs, lines_of, parameter_line
from cortado.running.brought import accept
from cortado.runtimes.compare import RUNS_OVER, runs_over
from cortado.runtimes.speed import with_speed
from cortado.task.data import Data
from cortado.task.disjoint import check_disjoint
from cortado.task.measure import check_calibration, mean_score, reference_score, scores
from cortado.task.shifts import shifted_copies, shifts_in
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
    made = compress_within(network, task, read_recipe(recipe), options.for_network(network, task))
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
    options = options.for_task(task)
    run = Run(
        working_copy(network, alias=True).eval(), task, read_recipe(recipe).for_blocks(options.channel_block), options
    )
    run.warnings += [*brought, *options.refusals, *check_disjoint(task)]
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
    bases: list[nn.Module] = field(default_factory=list)
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
        body = encode(made.network, made.base)
        # Trained floats take other bytes, and nothing of what they were was given up.
        silent = method.trains and method.leaves == (Leaves.FLOATS,)
        if self.rows and not silent and len(body) > GROWS * self.rows[-1].size_bytes:
            grown = f"The file grows from {size_text(self.rows[-1].size_bytes)} to {size_text(len(body))}."
            made = replace(made, notes=(*made.notes, grown))
        self.used |= part_kinds(made.network)
        made = replace(made, network=decode(body, made.base, [*self.used, *self.options.forms]))
        row = self.measured(made, number, len(body), time.perf_counter() - start)
        self.keep(number, body, row, made)
        self.add(row, body, made)
        LOG.info(
            "stage %d of %d %s", number + 1, len(stages), stage_text(row, self.task.metric.name, self.task.metric.unit)
        )
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
            method.name(), knobs, score, size_bytes, nonzero, seconds, made.notes, round=turn, curves=made.curves,
            parameters=sum(one.numel() for one in made.base.parameters()) if method.restarts else None,
        )  # fmt: skip

    def report(self, network: nn.Module, original_validation: float) -> Report:
        task, options = self.task, self.options
        compared, whole = test(self.original, network, task), self.compared()
        rounded = None if whole is None else rounded_layers(whole, network, task.validation)
        original_bytes = sum(value.numel() * value.element_size() for value in self.original.state_dict().values())
        general = (missing_kernels(), RUNS_OVER if runs_over(network) else None)
        layers, drawn = accounts(network, self.bases[-1], self.bodies[-1])
        shifts = shift_scores(self.original, network, task, shifts_in(options.limits))
        lines = lines_of(task, original_bytes, self.rows[-1].size_bytes, compared, options.limits, shifts)
        lines += limited_costs(self.original, network, task, options.limits)
        if self.bases[-1] is not self.original:
            lines += (parameter_line(self.original, network),)
        report = Report(
            task=task.name, network=type(self.original).__name__, metric_name=task.metric.name, metric_unit=task.metric.unit,
            higher_is_better=task.metric.higher_is_better, original_bytes=original_bytes, original_validation=original_validation,
            stages=tuple(self.rows), lines=lines, test=compared, layers=layers, pictures=drawn,
            warnings=(*self.warnings, *notes_of(self.rows), *filter(None, general)),
            recipe=json_data(self.recipe.as_data()),
            execution=execution_shares(network, (inputs for inputs, _ in task.test.batches(256))),
            seed=task.seed, environment=environment(), rounded=rounded, shifts=shifts,
        )  # fmt: skip
        own = list(self.used | set(options.forms))
        earlier = [partial(decode, *one, own) for one in zip(self.bodies[:-1], self.bases[:-1], strict=True)]
        return with_speed(
            report, self.original, network, task, options.speed, options.limits, options.progress, earlier, options.exports,
        )  # fmt: skip

    @cached_property
    def key(self) -> str:
        """Return a hash of everything a stage depends on."""
        return sum_of_run(self.recipe.as_data(), self.original, self.task)

    def keep(self, number: int, body: bytes, row: Stage, made: State) -> None:
        if self.options.folder is None:
            return
        known = {"key": self.key, "code": sum_of_code(made.base), "row": asdict(row), "forms": names_of(self.used)}
        note = {**known, **made.cuts_as_data()}
        StageFiles(self.options.folder, number).write(body, note)

    def resumed(self) -> State:
        """Return the state after the last finished stage of the same run, or before the first."""
        if self.options.folder is None:
            raise BadNetwork("compress: resume needs the folder of the interrupted run. Pass folder=...")
        state = begin(self.original, self.task.example)
        for number, method in enumerate(self.recipe.stages):
            files = StageFiles(self.options.folder, number)
            note = files.read_note()
            if note is None:
                break
            try:
                other, row, cuts = (
                    note["key"] != self.key or "survivors" not in note,
                    Stage(**note["row"]),
                    cuts_from(note),
                )
            except (ValueError, KeyError, TypeError) as error:
                raise files.damaged(error) from error
            body = b"" if other else files.read_network(note)
            own = () if other else parts_named(note.get("forms", []), f"compress: {files.note}")
            made = None if other else self.after(method, state, body, cuts, own)
            if made is None or note.get("code") != sum_of_code(made.base):
                self.warnings.append(
                    f"stage {number + 1} in {self.options.folder} is from another run (recipe, network or its code, data, seed "
                    "or version) and was run again"
                )
                break
            state = made
            self.add(row, body, state)
        return state

    def after(self, method: Method, state: State, body: bytes, cuts: Cuts, own: tuple[type[Part], ...]) -> State | None:
        """Return the state after a stored stage; None if its network is of another architecture now."""
        if method.restarts:
            again = apply_stage(method, state, self.task)
            try:
                return begin_again(decode(body, again.base), state)
            except WrongNetwork:
                return None
        reference = state.network if loses_moments(method) else state.reference
        made = decode(body, state.base, (*own, *self.options.forms))
        return replace(state, network=made, reference=reference, kept=cuts[0], survivors=cuts[1], fresh=False)

    def add(self, row: Stage, body: bytes, state: State) -> None:
        """Add a finished stage."""
        self.rows.append(row)
        self.bodies.append(body)
        self.bases.append(state.base)

    def compared(self) -> nn.Module | None:
        """Return the network with whose layers the report compares rounded ones: the original, or the trained student
        before it was rounded; None if there is none."""
        base = self.bases[-1]
        if base is self.original:
            return base
        own = list(self.used | set(self.options.forms))
        bodies = [body for body, other in zip(self.bodies, self.bases, strict=True) if other is base]
        made = (decode(body, base, own) for body in reversed(bodies[1:]))
        return next((network for network in made if not rounded_paths(network)), None)


def test(original: nn.Module, network: nn.Module, task: Task, data: Data | None = None) -> Compared:
    """Compare both networks on the test data, or on others, with a paired interval."""
    before = scores(original, data or task.test, task.metric)
    after = scores(network, data or task.test, task.metric, original=original)
    return paired_interval(before, after, task.metric.scale)


def shift_scores(
    original: nn.Module, network: nn.Module, task: Task, wanted: Sequence[str] = ()
) -> dict[str, Compared]:
    """Compare both networks on shifted test samples, in a trial after the shifts of limits alone, `wanted`."""
    copies = shifted_copies(task.test, task.seed, wanted, others=not task.trial)
    return {name: test(original, network, task, data) for name, data in copies}
