"""Cache: measurements of a planner run, kept in its folder and reused when the run resumes."""

import json
import time
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

from cortado.engine.fingerprints import identity, sum_of_data
from cortado.errors import BadFile
from cortado.file.artifact import encode
from cortado.file.whole import make_folder, write_whole
from cortado.task.task import Task

Made = TypeVar("Made")


@dataclass(frozen=True)
class Memory:
    """JSON files in `folder`, each with a `mark` of its inputs; files with another mark are ignored.

    `spent`: seconds that each value read from a file took to measure.
    """

    folder: Path
    mark: str
    spent: list[float] = field(default_factory=list)

    def made(self, name: str, kind: type[Made], make: Callable[[], Made], seconds: float = 0.0) -> Made:
        """Return the value stored as `name`, or make and store it.  Raises BadFile for a damaged file.

        `seconds` is the search's time limit: a value made under another limit is not reused, as it may be less complete.
        """
        path, mark = self.folder / f"{name}.json", f"{self.mark}, {seconds:g} s"
        try:
            stored = json.loads(path.read_text(encoding="utf8")) if path.exists() else None
            if stored is not None and stored["mark"] == mark:
                self.spent.append(float(stored["seconds"]))
                return cast(Made, rebuilt(kind, stored["body"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"goal: {path} is damaged ({error}). Delete it to measure again.") from error
        start, found = time.perf_counter(), make()
        make_folder(self.folder)
        body = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
        stored = {"mark": mark, "seconds": time.perf_counter() - start, "body": body}
        write_whole(path, json.dumps(stored).encode())
        return found


def rebuilt(kind: Any, data: Any) -> Any:
    """Return a value of an annotated type from the output of asdict: dataclasses, tuples, dicts and plain values."""
    inner = typing.get_args(kind)
    if is_dataclass(kind):
        hints, make = typing.get_type_hints(kind), cast(Any, kind)
        return make(**{key: rebuilt(hints[key], value) for key, value in data.items()})
    if typing.get_origin(kind) is tuple:
        kinds = inner[:1] * len(data) if inner[-1] is ... else inner
        return tuple(rebuilt(one, value) for one, value in zip(kinds, data, strict=True))
    if typing.get_origin(kind) is dict:
        return {key: rebuilt(inner[1], value) for key, value in data.items()}
    return data


def mark_of(network: nn.Module, task: Task, *more: Any) -> str:
    """Return a hash of a network with its values, the task's data and metric, and `more`."""
    sums = blake2b(encode(network, network, "bits"), digest_size=16)
    for data in (task.validation, task.calibration):
        sums.update(sum_of_data(data))
    score = [task.metric.name, task.metric.scale, identity(task.metric.functions)]
    sums.update(repr((task.name, task.seed, identity(task.outputs), score, *more)).encode())
    return sums.hexdigest()
