"""Remembered: what a planner's run has measured, in its folder, for when it goes on with the same network and data."""

import itertools
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
    """Files in `folder`, each with a `mark` of what it was measured on; with another mark it is as if there was none.

    `spent`: the seconds that whatever was read from a file took when it was measured.
    """

    folder: Path
    mark: str
    spent: list[float] = field(default_factory=list)

    def made(self, name: str, kind: type[Made], make: Callable[[], Made], seconds: float = 0.0) -> Made:
        """Return what was made within so many `seconds` of a search and is kept as `name`, made now where it is not.

        What one search leaves out for want of time is not missing in another.  Raises BadFile for a damaged file.
        """
        path, mark = self.folder / f"{name}.json", f"{self.mark}, {seconds:g} s"
        try:
            attached = json.loads(path.read_text(encoding="utf8")) if path.exists() else None
            if attached is not None and attached["mark"] == mark:
                self.spent.append(float(attached["seconds"]))
                return cast(Made, rebuilt(kind, attached["body"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"goal: {path} is damaged ({error}). Delete it, and it is measured again.") from error
        start, found = time.perf_counter(), make()
        make_folder(self.folder)
        body = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
        attached = {"mark": mark, "seconds": time.perf_counter() - start, "body": body}
        write_whole(path, json.dumps(attached).encode())
        return found


def rebuilt(kind: Any, data: Any) -> Any:
    """Return a value of an annotated type from the plain data that asdict gave: dataclasses, tuples and mappings of such."""
    inner = typing.get_args(kind)
    if is_dataclass(kind):
        hints, make = typing.get_type_hints(kind), cast(Any, kind)
        return make(**{key: rebuilt(hints[key], value) for key, value in data.items()})
    if typing.get_origin(kind) is tuple:
        kinds = itertools.repeat(inner[0]) if inner[-1] is ... else inner
        return tuple(rebuilt(one, value) for one, value in zip(kinds, data, strict=False))
    if typing.get_origin(kind) is dict:
        return {key: rebuilt(inner[1], value) for key, value in data.items()}
    return data


def mark_of(network: nn.Module, task: Task, *more: Any) -> str:
    """Stands for a network with its values, the data that measure it, and whatever else is given."""
    sums = blake2b(encode(network, network, "bits"), digest_size=16)
    for data in (task.validation, task.calibration):
        sums.update(sum_of_data(data))
    score = [task.metric.name, task.metric.scale, identity(task.metric.each), identity(task.metric.whole)]
    sums.update(repr((task.name, task.seed, task.answers, score, *more)).encode())
    return sums.hexdigest()
