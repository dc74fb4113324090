"""Recipe: methods in order, from Python, YAML or one line of text."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import cortado.methods
from cortado import renamed
from cortado.errors import BadRecipe, CortadoError
from cortado.knobs.nested import knobs_of, nested
from cortado.knobs.reading import knob_data, read_knobs
from cortado.methods.method import Method, accepts, check_last_stage
from cortado.yaml_text import read_yaml

ELSEWHERE = {
    "allocate": "cortado.planner.allocate.mix:Mix",
    "prune/widths": "cortado.planner.search.widths:Widths",
    "quantize/ptq_search": "cortado.planner.search.ptq_search:PtqSearch",
}
"""Methods built on the planner, by name; imported on demand."""
KEYS = ("name", "paper", "notes", "figures", "network", "task", "match_moments", "stages")


@dataclass(frozen=True)
class Recipe:
    """Stages in order.  `match_moments`: match moments after every lossy stage without training of its own.

    >>> recipe = cortado.Recipe((PruneWeights(keep=0.5), QuantizeWeights(bits=4)))

    `rounds` has the round of a repeat for each stage ("round 2 of 3"; "" outside a repeat). `name`, `paper`, `notes` and
    `figures` (the paper's numbers beside ours) document the recipe; `network` and `task` name what it was written for (a
    job may bring its own).
    """

    stages: tuple[Method, ...]
    match_moments: bool = True
    name: str = "recipe"
    paper: str = ""
    notes: str = ""
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    network: Any = None
    task: Any = None
    rounds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", self.rounds or ("",) * len(self.stages))
        if not isinstance(self.match_moments, bool):
            raise BadRecipe(f"recipe: match_moments must be true or false, got {self.match_moments!r}.")
        check_last_stage(self.stages)

    def for_blocks(self, size: int | None) -> "Recipe":
        """Return the recipe for runtimes that compute `size` channels at once; the recipe itself for None."""
        if size is None:
            return self
        return dataclasses.replace(self, stages=tuple(stage.for_blocks(size) for stage in self.stages))

    def as_data(self) -> dict[str, Any]:
        """Return the recipe as plain data with every knob, readable by `read_recipe`."""
        head = {key: value for key in ("name", "paper", "notes") if (value := getattr(self, key))}
        stages = [stage_data(*pair) for pair in zip(self.stages, self.rounds, strict=True)]
        return {**head, "match_moments": self.match_moments, "stages": stages}


def stage_data(stage: Method, turn: str = "") -> dict[str, Any]:
    """Return a stage as {name: {knob: value}}, with its round in a repeat."""
    return {stage.name(): knob_data(stage), **({"round": turn} if turn else {})}


@cache
def known_methods() -> tuple[str, ...]:
    """Return the names of all methods: paths of files under methods/, and those of ELSEWHERE."""
    names = list(ELSEWHERE)
    for info in pkgutil.walk_packages(cortado.methods.__path__, "cortado.methods."):
        name = info.name.removeprefix("cortado.methods.").replace(".", "/")
        if not info.ispkg and defined_in(name) is not None:
            names.append(name)
    return tuple(sorted(names))


def defined_in(name: str) -> type | None:
    """Return the class that the file of a method defines; None if there is no such file or class."""
    try:
        module = importlib.import_module(f"cortado.methods.{name.replace('/', '.')}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("cortado.methods"):
            raise
        return None
    made = vars(module).get(method_class_name(name))
    return made if isinstance(made, type) and not inspect.isabstract(made) else None


def method_class_name(name: str) -> str:
    """Return the class name of a method: prune/weights -> PruneWeights."""
    return "".join(word.capitalize() for part in name.split("/") for word in part.split("_"))


def method_class(name: str) -> type[Method]:
    """Return the class of a method: a path under methods/, or a user's package.module:Class.  Raises BadRecipe."""
    name = renamed.current("recipe", name, renamed.METHODS)
    module_name, own, class_name = ELSEWHERE.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name) if own else defined_in(name)
    except (ImportError, AttributeError) as error:
        raise BadRecipe(f"recipe: {name!r} cannot be loaded ({error}). Write package.module:Class.") from error
    if found is None and not own:
        near = get_close_matches(name, known_methods()) or known_methods()
        raise BadRecipe(f"recipe: no method is called {name!r}. Did you mean: {', '.join(near)}?")
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise BadRecipe(f"recipe: {name!r} is not a Method. Subclass cortado.Method.")
    return found


def make_stage(name: str, knobs: dict[str, Any], where: str = "recipe") -> Method:
    """Return a method from its name and knobs.  Raises BadRecipe for an unknown knob, BadValue for an invalid value."""
    kind = method_class(name)
    try:
        values = read_knobs(kind, renamed.current_values(kind.name(), knobs), f"{where} ({name})")
        return kind(**nested(kind, values, kind.name()))
    except CortadoError as error:
        raise type(error)(str(error) if str(error).startswith(where) else f"{where}: {error}") from error


REPEAT = """\
Run a few stages several times.

`repeat: {times: 3, do: [...]}` runs the stages of `do` three times: each is a normal stage with its own row in the report,
its file, and moment matching. A knob given as a list has one value per round, so
`prune/weights: {keep: [0.5, 0.3, 0.1]}` prunes more in each round."""
"""The documentation of `repeat`, which is not a method."""
Turn = tuple[Method, str]
"""A stage and its round: "round 2 of 3", or "" outside a repeat."""


def repeated(knobs: Any, where: str) -> list[Turn]:
    """Return the stages of repeat: {times, do}, round by round; a knob given as a list has one value per round."""
    given = knobs if isinstance(knobs, dict) else {}
    times, stages = given.get("times", 2), given.get("do")
    # Older reports and bundles have the rounds written out.
    rounds = given.get("rounds") if set(given) == {"rounds"} else []
    if type(times) is int and isinstance(stages, list) and not set(given) - {"times", "do"}:
        rounds = [[pick_turn(one, turn, times, where) for one in stages] for turn in range(times)]
    if not isinstance(rounds, list) or not rounds or not all(isinstance(one, list) and one for one in rounds):
        raise BadRecipe(
            f"{where} (repeat): write repeat: {{times: 3, do: [...]}} with times of 1 or more, got {knobs}."
        )
    return [
        (stage, f"round {turn} of {len(rounds)}{', ' if inner else ''}{inner}")
        for turn, stages in enumerate(rounds, 1)
        for one in stages
        for stage, inner in read_stages(one, where)
    ]


def pick_turn(stage: Any, turn: int, times: int, where: str) -> Any:
    """Return a stage with each list replaced by its value for this round."""
    if not isinstance(stage, dict):
        return stage
    picked: dict[str, Any] = {}
    for name, knobs in stage.items():
        if knobs is not None and not isinstance(knobs, dict):
            raise BadRecipe(f"{where} (repeat): the knobs of {name} must be keys with values, got {knobs!r}.")
        picked[name] = dict(knobs or {})
        listed = lists_of(name) if isinstance(name, str) and name != "repeat" else []
        for key, value in picked[name].items():
            if isinstance(value, list) and name != "repeat" and key not in listed:
                if len(value) != times:
                    raise BadRecipe(f"{where} (repeat): {name}.{key} has {len(value)} values for {times} rounds.")
                picked[name][key] = value[turn]
    return picked


def lists_of(name: str) -> list[str]:
    """Return the knobs of a method that are lists themselves, such as objectives: they are the same in every round."""
    return [one.name for one in knobs_of(method_class(name)).values() if one.hint is not Any and accepts(one.hint, ())]


def read_stages(data: Any, where: str) -> list[Turn]:
    """Return the stage of a line of text or of {name: {knob: value}}; for a repeat, its stages in order."""
    if isinstance(data, Method):
        return [(data, "")]
    if isinstance(data, str) and data != "repeat":
        return [(make_stage(*words_of(data, where), where), "")]
    turn = data.get("round", "") if isinstance(data, dict) else ""
    named = {key: value for key, value in data.items() if key != "round"} if isinstance(data, dict) else {}
    if len(named) == 1 and isinstance(turn, str):
        name, knobs = next(iter(named.items()))
        if name == "repeat":
            return repeated(knobs, where)
        if isinstance(name, str) and (knobs is None or isinstance(knobs, dict)):
            return [(make_stage(name, knobs or {}, where), turn)]
    raise BadRecipe(
        f"{where}: a stage is a name or one name with its knobs, got {data!r}. Write - prune/weights: {{keep: 0.3}}."
    )


def read_recipe(source: Any) -> Recipe:
    """Read a recipe from a Recipe, a list of stages, a dict, a YAML file, or one line of text.

    One line: "prune/weights keep=0.3 where=conv*, not conv1 | finetune epochs=2". Raises BadRecipe, BadValue.
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, Method):
        return Recipe((source,))
    if isinstance(source, (list, tuple)):
        turns = [turn for number, one in enumerate(source, 1) for turn in read_stages(one, f"recipe, stage {number}")]
        if not turns:
            raise BadRecipe("recipe: it has no stages. Give at least one, such as quantize/weights.")
        return Recipe(tuple(stage for stage, _ in turns), rounds=tuple(turn for _, turn in turns))
    if isinstance(source, dict):
        return read_mapping(source)
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith((".yaml", ".yml"))):
        return read_file(Path(source))
    if isinstance(source, str):
        parts = enumerate(source.split("|"), 1)
        return read_recipe([dict([words_of(part, f"recipe, stage {number}")]) for number, part in parts])
    raise BadRecipe(f"recipe: a recipe is a file, a text, a list or a Recipe, got {type(source).__name__}.")


def read_file(path: Path) -> Recipe:
    """Read a recipe from a YAML file; weights that it names lie beside it."""
    data = beside(path, data_of(path))
    recipe = read_recipe(data if isinstance(data, (dict, list)) else {})
    return recipe if recipe.name != "recipe" else dataclasses.replace(recipe, name=path.stem)


def data_of(path: Path) -> Any:
    """Return the data of a YAML file.  Raises BadRecipe."""
    try:
        return read_yaml(path.read_text(encoding="utf8"))
    except OSError as error:
        raise BadRecipe(f"recipe: {path} cannot be read ({error.strerror}). Check the path.") from error
    except yaml.YAMLError as error:
        raise BadRecipe(f"recipe: {path} is not YAML ({error}).") from error


def beside(path: Path, data: Any) -> Any:
    """Return a file's data with the files of weights that it names relative to the folder of `path`."""
    return with_files_of_weights(data, lambda weights: str(path.parent / weights))


def with_files_of_weights(data: Any, changed: Callable[[str], str]) -> Any:
    """Return data with `changed` applied to the file of weights of each {network: ..., weights: file}: teachers, students."""
    if isinstance(data, dict):
        found = {key: with_files_of_weights(value, changed) for key, value in data.items()}
        named = "network" in found and isinstance(found.get("weights"), str)
        return {**found, "weights": changed(found["weights"])} if named else found
    return [with_files_of_weights(value, changed) for value in data] if isinstance(data, (list, tuple)) else data


def read_mapping(data: dict[str, Any]) -> Recipe:
    data = renamed.current_keys("recipe", data, renamed.KEYS)
    for key in data:
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, n=1)
            raise BadRecipe(
                f"recipe: no key {key!r}; {f'did you mean {near[0]!r}?' if near else 'known: ' + ', '.join(KEYS)}"
            )
    head = {key: value for key, value in data.items() if key != "stages"}
    if not isinstance(data.get("stages"), list):
        raise BadRecipe(
            f"recipe: stages must be a list, got {data.get('stages')!r}. Write stages: [prune/weights, finetune]."
        )
    return dataclasses.replace(read_recipe(data["stages"]), **head)


def words_of(text: str, where: str) -> tuple[str, dict[str, Any]]:
    """Return name and knobs from "name key=value key=value"; a word without "=" continues the value before it."""
    words = text.split()
    if not words:
        raise BadRecipe(f"{where}: it is empty. Write, for example, prune/weights keep=0.3.")
    texts, last = dict[str, str](), ""
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals and last:
            texts[last] += f" {word}"
            continue
        if not equals:
            raise BadRecipe(f"{where} ({words[0]}): {word!r} is not key=value.")
        if key in texts:
            raise BadRecipe(f"{where} ({words[0]}): {key} is given twice. Keep the one you mean.")
        texts[key], last = value, key
    return words[0], {key: word_value(value) for key, value in texts.items()}


def word_value(text: str) -> Any:
    """Return a value of a one-line recipe: parsed as YAML, or the text itself if it is not YAML (*.bias)."""
    try:
        return read_yaml(text)
    except yaml.YAMLError:
        return text
