"""Job: a network, a task and the original weights, from a Python file, package.module:maker or a YAML file."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save as as_safetensors
from torch import nn

from cortado.engine.own_parts import parts_named
from cortado.engine.recipe import Recipe, beside, data_of, make_stage, words_of
from cortado.engine.stage import apply_stage, start
from cortado.errors import BadNetwork, BadRecipe
from cortado.file.beside import RESTARTS, restarts_beside
from cortado.file.whole import make_folder, write_whole
from cortado.knobs.open_values import open_names
from cortado.methods.method import Method
from cortado.nets.checkpoint import load_weights
from cortado.nets.named import ONNX, SOURCE, call_maker, check_keys, named_network
from cortado.parts.part import Part
from cortado.progress import Progress
from cortado.running.brought import accept
from cortado.task.measure import check_stated
from cortado.task.task import Task
from cortado.tasks.catalog import built_in
from cortado.yaml_text import read_yaml

MAKER = "job"
"""The function of a Python file that returns network and task."""
ORIGINAL = "original_{}.safetensors"
"""File name of the original network's weights in a run's folder, by the job's mark."""

KEYS = (
    "network", "options", "weights", "task", "task_options", "train", "recipe", "limits", "seed", "score", "forms",
    "members",
)  # fmt: skip
SORT_WORDS = {
    str: "a name", int: "a whole number", dict: "keys with values", list: "a list", (int, float): "a number",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What to compress.  `make()` returns the architecture, `weights` is a file of its state: safetensors, npz or torch.save's.

    >>> job = cortado.Job(make=lambda: net, make_task=lambda: task, limits=("score >= -1 %",))

    `training` (knobs of finetune) trains the network first if there are no weights. `recipe` and `limits` are defaults that
    the command line may override. `score` is the known score of the original network, in the unit of the task's metric:
    `compress` and `plan`, and `trusted` in Python, raise if it is not reached (cortado.task.measure.check_stated has the
    tolerance). `members` are smaller trained networks that the planner may put in front, written as for conditional/cascade.
    `forms` are your own classes of forms and blocks, without which files that have them cannot be read. `source` is the job's
    file, beside which teachers' weights lie. `file_maker` makes the network that a bundle's file is written against.
    `open_options` are options of the network's maker that cortado search chooses; `make()` leaves them at the maker's defaults.
    """

    make: Callable[[], nn.Module]
    make_task: Callable[[], Task]
    weights: Path | None = None
    training: dict[str, Any] = field(default_factory=dict)
    recipe: Any = None
    limits: tuple[str, ...] = ()
    text: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    forms: tuple[type[Part], ...] = ()
    source: Path = Path("job.yaml")
    file_maker: Callable[[], nn.Module] | None = None
    members: tuple[Any, ...] = ()
    open_options: dict[str, Any] = field(default_factory=dict)

    def architecture(self) -> nn.Module:
        """Return a network that files of this job can be loaded into: the original, or what stages put in its place."""
        return self.file_maker() if self.file_maker is not None else built_on(self.make(), restarts_in(self.recipe))

    def original(self, task: Task, folder: Path | None = None, progress: Progress | None = None) -> nn.Module:
        """Return the trained network: from its weights, from the folder of an earlier run, or trained now.

        It is stored in the folder, so that the bundle there can be verified without the job's own files.
        """
        if self.open_options:
            raise BadRecipe(
                f"job: the network's options {', '.join(self.open_options)} are open. cortado search chooses them; for anything "
                "else write one value for each."
            )
        # Only networks trained for this job are reused; a job with a network of its own always returns that.
        kept = self.kept(task, folder) if folder and self.training else None
        source = self.weights or (kept if kept and kept.exists() else None)
        network = self.begun(task)
        if source is None and self.training:
            finetune = make_stage("finetune", beside(self.source, self.training), "job, train")
            apply_stage(finetune, start(network, network, task.example), task, progress=progress, check=False)
            if kept:
                make_folder(kept.parent)
                write_whole(kept, as_safetensors(own_tensors(network)))
                # Read the file back, as a resumed run does: its tensors have another memory layout than trained ones.
                source, network = kept, self.begun(task)
        if source is not None:
            load_weights(network, source)
        if self.weights and folder:
            make_folder(folder)
            write_whole(self.kept(task, folder), as_safetensors(own_tensors(network)))
        return network.eval()

    def trusted(self, task: Task, folder: Path | None = None, progress: Progress | None = None) -> nn.Module:
        """Return original() after checking its stated score on validation data.  Raises BadTask if it is not reached."""
        network = self.original(task, folder, progress)
        if self.score is not None:
            check_stated(network, task, self.score)
        return network

    def original_again(self, task: Task, folder: Path) -> nn.Module:
        """Return the trained network of the run in `folder`, without training.  Raises BadNetwork if its weights are missing."""
        network = self.begun(task)
        source = self.kept(task, folder) if self.training or self.weights else None
        if source is not None and not source.exists() and self.weights and self.weights.exists():
            source = self.weights
        if source is not None and not source.exists():
            raise BadNetwork(
                f"job: the original network of {folder} is missing: there is no {source}. Restore the file that compress "
                "wrote there, or compress again into that folder; it is not trained again here."
            )
        if source is not None:
            load_weights(network, source)
        return network.eval()

    def begun(self, task: Task) -> nn.Module:
        """Return the untrained network, initialised with the task's seed."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(task.seed)
            network = self.make()
        accept(network, "job")
        return network

    def kept(self, task: Task, folder: Path) -> Path:
        """Return the path of the original network's weights in a run's folder."""
        return folder / ORIGINAL.format(self.mark(task))

    def mark(self, task: Task) -> str:
        """Return a hash of the job's text and its seed; of an ONNX file the name, as a bundle has a copy."""
        text = {key: value for key, value in self.text.items() if key not in ("score", "forms", "members")}
        if str(text.get("network", "")).endswith(ONNX):
            text["network"] = Path(text["network"]).name
        data = json.dumps([text, self.training, task.name, task.seed], sort_keys=True, default=str)
        return blake2b(data.encode(), digest_size=6).hexdigest()


def own_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the dense state of a network for safetensors, with tied tensors copied."""
    return {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}


def read_job(source: str, seed: int | None = None) -> Job:
    """Read a job from a Python file, a YAML file, "package.module:maker" or a bundle's folder.

    A maker returns a Job or a pair (network, task); in file.py it is `job`, unless file.py:maker names another. Keys of a
    file: network (a name of nets/, package.module:maker, or an .onnx file), options, weights, task (built in, or
    package.module:maker), task_options, train, recipe, limits, seed, score, forms, members. Raises BadRecipe, BadNetwork,
    BadTask.
    """
    if source.endswith((".yaml", ".yml")):
        return job_of_file(Path(source), seed)
    if Path(source).is_dir():
        return job_of_bundle(Path(source), seed)
    maker = f"{source}:{MAKER}" if source.endswith(SOURCE) else source
    made = call_maker(maker, "job", way_out=f"Write a .yaml file, package.module:maker, or a .py file with {MAKER}().")
    if isinstance(made, Job):
        return made if made.text else dataclasses.replace(made, text={"job": source})
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and isinstance(made[1], Task):
        network, task = made
        if seed is not None:
            task = dataclasses.replace(task, seed=seed)
        return Job(make=lambda: network, make_task=lambda: task, text={"job": source})
    raise BadRecipe(f"job: {source} returned {type(made).__name__}. Return (network, task) or a Job.")


def job_of_file(path: Path, seed: int | None) -> Job:
    """Read a job from a YAML file.  Raises BadRecipe for unknown keys, with suggestions."""
    try:
        data = read_yaml(path.read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadRecipe(f"job: {path} cannot be read as YAML ({error}).") from error
    if not isinstance(data, dict):
        raise BadRecipe(f"job: {path} holds no keys. It needs at least network and task.")
    for key in data:
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, n=1)
            raise BadRecipe(
                f"job: no key {key!r}; {f'did you mean {near[0]!r}?' if near else 'known: ' + ', '.join(KEYS)}"
            )
    for key in ("network", "task"):
        if key not in data:
            raise BadRecipe(f"job: {path} has no {key}. Add {key}: ...")
    data = with_flat_network(data)
    check_sorts(data)
    if data["network"].endswith(ONNX):
        data["network"] = str((path.parent / data["network"]).resolve())
    number = seed if seed is not None else data.get("seed", 0)
    options, task_options = dict(data.get("options") or {}), dict(data.get("task_options") or {})
    opened = {name: options.pop(name) for name in open_names(options)}
    weights = path.parent / data["weights"] if data.get("weights") else None
    return Job(
        make=lambda: named_network(data["network"], "job, network", options),
        make_task=lambda: made_task(data["task"], {**task_options, "seed": number}),
        weights=weights, training=dict(data.get("train") or {}), recipe=recipe_beside(path, data.get("recipe")),
        limits=tuple(data.get("limits") or ()), text=data, score=data.get("score"),
        forms=parts_named(data.get("forms") or [], "job"), source=path, members=tuple(beside(path, data.get("members") or [])),
        open_options=opened,
    )  # fmt: skip


def job_of_bundle(folder: Path, seed: int | None) -> Job:
    """Read the job of a bundle."""
    path = folder / "job.yaml"
    try:
        data = read_yaml(path.read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadRecipe(f"job: {folder} is not a bundle: job.yaml cannot be read ({error}).") from error
    if isinstance(data, dict) and "job" in data and set(data) <= {"job", "forms"}:
        job = read_job(str(data["job"]), seed)
        job = dataclasses.replace(job, forms=(*job.forms, *parts_named(data.get("forms") or [], "job")))
    else:
        job = job_of_file(path, seed)
    stages = [make_stage(name, knobs, "bundle") for name, knobs in restarts_beside(folder)]
    return dataclasses.replace(job, file_maker=lambda: built_on(job.make(), stages))


def built_on(network: nn.Module, stages: Sequence[Method]) -> nn.Module:
    """Return the network that stages which restart put in the place of another, with any weights."""
    for stage in stages:
        network = stage.architecture(network)
    return network


def with_flat_network(data: dict[str, Any]) -> dict[str, Any]:
    """Return a job's data with `network: {maker: name, options: ..., weights: ...}` as keys of their own.  Raises BadRecipe."""
    network = data.get("network")
    if not isinstance(network, dict):
        return data
    named = {"network" if key == "maker" else key: value for key, value in network.items()}
    check_keys(named, "job, network")
    twice = [key for key in ("options", "weights") if key in named and data.get(key) is not None]
    if twice:
        raise BadRecipe(f"job: {twice[0]} stands in network and beside it. Keep one of them.")
    return {**data, **named}


def check_sorts(data: dict[str, Any]) -> None:
    """Raise BadRecipe for a value of the wrong type."""
    sorts: dict[str, Any] = {"network": str, "task": str, "weights": str, "seed": int, "score": (int, float)}
    for key, sort in (
        sorts | {"options": dict, "task_options": dict, "train": dict, "limits": list, "members": list}
    ).items():
        if data.get(key) is not None and (not isinstance(data[key], sort) or isinstance(data[key], bool)):
            raise BadRecipe(f"job: {key} must be {SORT_WORDS[sort]}, got {data[key]!r}. See examples/digits.yaml.")


def restarts_in(recipe: Any) -> list[Method]:
    """Return the stages of a recipe from any source that put another network in place, in order.

    Its other stages may be open, as for a search.
    """
    if isinstance(recipe, str) and recipe.endswith((".yaml", ".yml")):
        recipe = data_of(Path(recipe))
    if isinstance(recipe, str):
        recipe = [dict([words_of(part, "recipe")]) for part in recipe.split("|")]
    stages = recipe.stages if isinstance(recipe, Recipe) else recipe
    stages = stages.get("stages") if isinstance(stages, dict) else stages
    found: list[Method] = []
    for one in stages if isinstance(stages, (list, tuple)) else [stages]:
        stage = dict([words_of(one, "recipe")]) if isinstance(one, str) else one
        if isinstance(stage, Method) and stage.restarts:
            found.append(stage)
        if isinstance(stage, dict) and isinstance(repeat := stage.get("repeat"), dict):
            found += restarts_in(repeat.get("do"))
        if isinstance(stage, dict):
            found += [make_stage(name, stage[name] or {}) for name in RESTARTS if name in stage]
    return found


def recipe_beside(path: Path, recipe: Any) -> Any:
    """Return a recipe whose file, or whose files of weights, are relative to the job's folder."""
    is_file = isinstance(recipe, str) and recipe.endswith((".yaml", ".yml"))
    return str(path.parent / recipe) if is_file else beside(path, recipe)


def made_task(name: str, options: dict[str, Any]) -> Task:
    made = call_maker(name, "job, task", options) if ":" in name else built_in(name, **options)
    if not isinstance(made, Task):
        raise BadRecipe(f"job: {name} made {type(made).__name__}, not a Task.")
    return made
