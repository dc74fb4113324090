"""Remembered: what a planner's run has measured, in its folder, for when it goes on with the same network and data."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from cortado.engine.fingerprints import identity, sum_of_data
from cortado.errors import BadFile
from cortado.file.artifact import encode
from cortado.file.whole import make_folder, write_whole
from cortado.planner.allocate.plan import Plan
from cortado.planner.allocate.size_accuracy_curve import Measured, SizeAccuracyCurve
from cortado.planner.search.shapes import Shape, Shapes
from cortado.planner.sensitivity.candidates import Candidate, Choices
from cortado.task.task import Task

Made = TypeVar("Made", SizeAccuracyCurve, Shapes, float)


@dataclass(frozen=True)
class Memory:
    """Files in `folder`, each with a `mark` of what it was measured on; with another mark it is as if there was none.

    `spent`: the seconds that whatever was read from a file took when it was measured.
    """

    folder: Path
    mark: str
    spent: list[float] = field(default_factory=list)

    def size_accuracy_curve(self, make: Callable[[], SizeAccuracyCurve]) -> SizeAccuracyCurve:
        """The forecast of this network, made now where there is none.  Raises BadFile for a damaged file."""
        return self.made("forecast.json", make, curve_data, curve_of)

    def shapes(self, make: Callable[[], Shapes], seconds: float = 0.0) -> Shapes:
        """The shapes of this network that were found in so many `seconds`, measured now where they were not.

        Raises BadFile for a damaged file.
        """
        return replace(self, mark=f"{self.mark}, {seconds:g} s").made("shapes.json", make, asdict, shapes_of)

    def epoch(self, make: Callable[[], float]) -> float:
        """Seconds that a pass over the training data takes, the same in a run that goes on.  Raises BadFile."""
        return self.made("epoch.json", make, float, float)

    def made(
        self, name: str, make: Callable[[], Made], data_of: Callable[[Made], Any], made_of: Callable[[Any], Made]
    ) -> Made:
        path = self.folder / name
        try:
            attached = json.loads(path.read_text(encoding="utf8")) if path.exists() else None
            if attached is not None and attached["mark"] == self.mark:
                self.spent.append(float(attached["seconds"]))
                return made_of(attached["body"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"goal: {path} is damaged ({error}). Delete it, and it is measured again.") from error
        start = time.perf_counter()
        found = make()
        make_folder(self.folder)
        attached = {"mark": self.mark, "seconds": time.perf_counter() - start, "body": data_of(found)}
        write_whole(path, json.dumps(attached).encode())
        return found


def mark_of(network: nn.Module, task: Task, *more: Any) -> str:
    """Stands for a network with its values, the data that measure it, and whatever else is given."""
    sums = blake2b(encode(network, network, "bits"), digest_size=16)
    for data in (task.validation, task.calibration):
        sums.update(sum_of_data(data))
    score = [task.metric.name, task.metric.scale, identity(task.metric.each), identity(task.metric.whole)]
    sums.update(repr((task.name, task.seed, task.answers, score, *more)).encode())
    return sums.hexdigest()


def curve_data(found: SizeAccuracyCurve) -> dict[str, Any]:
    """A forecast as plain data."""
    return {
        "choices": [[one.path, one.original_bytes, [row(it) for it in one.candidates]] for one in found.choices],
        "measured": [
            [{path: row(it) for path, it in one.plan.chosen.items()}, one.plan.constant, one.kl, one.score, one.size_bytes]
            for one in found.measured
        ],
        "rest_bytes": found.rest_bytes, "score": found.score, "sign": found.sign,
    }  # fmt: skip


def curve_of(data: dict[str, Any]) -> SizeAccuracyCurve:
    """The forecast that `curve_data` gave."""
    choices = tuple(Choices(path, size, tuple(Candidate(*it) for it in some)) for path, size, some in data["choices"])
    measured = tuple(
        Measured(Plan({path: Candidate(*it) for path, it in chosen.items()}, constant), *facts)
        for chosen, constant, *facts in data["measured"]
    )
    return SizeAccuracyCurve(choices, data["rest_bytes"], data["score"], data["sign"], measured)


def row(candidate: Candidate) -> list[Any]:
    return [candidate.way, candidate.size_bytes, candidate.predicted_kl, candidate.multiply_adds]


def shapes_of(data: dict[str, Any]) -> Shapes:
    """The shapes that asdict gave."""
    return Shapes(tuple(Shape(**one) for one in data["found"]), dict(data["refused"]))
