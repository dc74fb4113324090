"""Staged: a network whose paths depend on the input as several files, and the loop that runs those a sample needs.

`stages.json` beside the files says which values each reads and makes, and which run only where a choice is made. The loop
decides for one sample at a time, so that what a sample gets does not depend on its neighbours.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from cortado.errors import BadFile, BadNetwork, comes_from_system
from cortado.lowering.stages import StageChoice, StagePart, Stages
from cortado.runtimes.runtime import Port, Session, type_name

EVERYTHING, STAGES = "everything", "stages"
"""The forms of a runtime without control flow: one file that computes all and picks, or several and a loop."""
PLAN, MAIN = "stages.json", "net"
Write = Callable[[fx.GraphModule, tuple[Tensor, ...], Path], object]
LOOP = '''
import json

PLAN = FILE.with_name("stages.json")
plan = json.loads(PLAN.read_text()) if PLAN.exists() else None
opened = {}


def run(name, given):
    """The outputs of a file for one sample."""
    if name not in opened:
        opened[name] = load(FILE.with_name(name))
    return opened[name](given)


def follow(steps, values):
    """Runs the steps for one sample, those inside a choice only where it is made."""
    for step in steps:
        if "file" in step:
            values.update(zip(step["makes"], run(step["file"], [values[name] for name in step["reads"]])))
            continue
        chosen = bool(values[step["rows"]].any())
        if chosen:
            follow(step["steps"], values)
        values[step["result"]] = values[step["chosen" if chosen else "otherwise"]]


def one(given):
    """The first output for one sample."""
    if plan is None:
        return run(FILE.name, given)[0]
    values = {port["name"]: value for port, value in zip(plan["inputs"], given)}
    follow(plan["steps"], values)
    return values[plan["outputs"][0]]


def predict(*inputs):
    """The first output for one batch, sample by sample."""
    return np.concatenate([one([part[n : n + 1] for part in inputs]) for n in range(len(inputs[0]))])
'''
"""The loop of `run.py`, for which a runtime defines load(path): a function from a file's inputs to its outputs."""


class StagedSession:
    """The files of one network, of which each sample runs those that it needs."""

    def __init__(self, file: Path, load: Callable[[Path], Session]) -> None:
        plan = read_plan(file)
        self.inputs = tuple(
            Port(port["name"], tuple(port["shape"]), getattr(torch, port["dtype"])) for port in plan["inputs"]
        )
        self.outputs: list[str] = plan["outputs"]
        self.steps: list[dict[str, Any]] = plan["steps"]
        self.parts = {name: load(file.with_name(name)) for name in files_in(self.steps)}

    def __call__(self, *activations: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for one sample."""
        values = {port.name: value for port, value in zip(self.inputs, activations, strict=True)}
        self.follow(self.steps, values)
        return tuple(values[name] for name in self.outputs)

    def follow(self, steps: Sequence[dict[str, Any]], values: dict[str, Tensor]) -> None:
        """Run steps in order, those inside a choice only where it is made."""
        for step in steps:
            if "file" in step:
                made = self.parts[step["file"]](*(values[name] for name in step["reads"]))
                values.update(zip(step["makes"], made, strict=True))
                continue
            chosen = bool(values[step["rows"]].any())
            if chosen:
                self.follow(step["steps"], values)
            values[step["result"]] = values[step["chosen" if chosen else "otherwise"]]


def has_stages(file: Path) -> bool:
    """Return whether a file is the main one of several."""
    return file.stem == MAIN and file.with_name(PLAN).is_file()


def part_names(file: Path) -> list[str]:
    """Return the names of the files that a main file stands for: its own, or those of all parts."""
    return files_in(read_plan(file)["steps"]) if has_stages(file) else [file.name]


def write_stages(stages: Stages, file: Path, write: Write) -> Path:
    """Write each part beside `file`, the first as `file` itself, and the plan; return `file`.

    `write(graph, inputs, path)` writes one part; its inputs are what the parts before it make of the example.
    """
    plan = {
        "inputs": [
            {"name": name, "shape": list(value.shape), "dtype": type_name(value.dtype)}
            for name, value in stages.inputs.items()
        ],
        "outputs": list(stages.outputs),
        "steps": StageWriter(file, write, dict(stages.inputs)).steps(stages.steps),
    }
    file.with_name(PLAN).write_text(json.dumps(plan, indent=1) + "\n", encoding="utf8")
    return file


class StageWriter:
    """Writes parts in order, and computes what each makes of an example."""

    def __init__(self, file: Path, write: Write, values: dict[str, Tensor]) -> None:
        self.file, self.write, self.values, self.count = file, write, values, 0

    def steps(self, steps: Sequence[StagePart | StageChoice]) -> list[dict[str, Any]]:
        """Write the parts of some steps, and return these as the plan has them."""
        return [self.part(step) if isinstance(step, StagePart) else self.choice(step) for step in steps]

    def part(self, part: StagePart) -> dict[str, Any]:
        """Write one part."""
        own = self.file.with_stem(f"{MAIN}_{self.count}") if self.count else self.file
        self.count += 1
        given = tuple(self.values[name] for name in part.reads)
        with torch.no_grad():
            self.values.update(zip(part.makes, part.network(*given), strict=True))
        try:
            self.write(part.network, given, own)
        except Exception as error:
            if comes_from_system(error):
                raise
            why = " ".join(str(error).split())[:200]
            raise BadNetwork(f"stages: {own.name} cannot be written: {type(error).__name__}: {why}") from error
        return {"file": own.name, "reads": list(part.reads), "makes": list(part.makes)}

    def choice(self, choice: StageChoice) -> dict[str, Any]:
        """Write what a choice runs, whether the example needs it or not."""
        steps = self.steps(choice.steps)
        taken = bool(self.values[choice.rows].any())
        self.values[choice.result] = self.values[choice.chosen if taken else choice.otherwise]
        found = {name: getattr(choice, name) for name in ("rows", "chosen", "otherwise", "result")}
        return {**found, "steps": steps}


def read_plan(file: Path) -> dict[str, Any]:
    """Return the plan beside a file.  Raises BadFile for one that does not fit."""
    path = file.with_name(PLAN)
    try:
        plan = json.loads(path.read_text(encoding="utf8"))
        check_steps(plan["steps"], {port["name"] for port in plan["inputs"]}, plan["outputs"])
        if not all(isinstance(getattr(torch, port["dtype"], None), torch.dtype) for port in plan["inputs"]):
            raise ValueError("an input has no known type")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadFile(
            f"stages: {path} cannot be read ({type(error).__name__}: {error}). Export the network again."
        ) from error
    return plan  # type: ignore[no-any-return]


def check_steps(steps: Sequence[dict[str, Any]], known: set[str], wanted: Sequence[str]) -> None:
    """Raise ValueError if a step reads what no step before it made, or names a file elsewhere."""
    for step in steps:
        if "file" in step:
            if Path(step["file"]).name != step["file"]:
                raise ValueError(f"{step['file']!r} is no file of this folder")
            check_known(step["reads"], known)
            known |= set(step["makes"])
        else:
            check_known((step["rows"], step["otherwise"]), known)
            check_steps(step["steps"], set(known), (step["chosen"],))
            known.add(step["result"])
    check_known(wanted, known)


def check_known(names: Sequence[str], known: set[str]) -> None:
    """Raise ValueError for a name of no value."""
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"nothing makes {missing[0]!r}")


def files_in(steps: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the files of some steps, those inside choices too."""
    return [name for step in steps for name in ([step["file"]] if "file" in step else files_in(step["steps"]))]
