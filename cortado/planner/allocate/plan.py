"""Plan: which way each weight is held, as a recipe that anyone can read, run and keep."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from cortado.engine.recipe import Recipe, read_recipe
from cortado.methods.method import Method
from cortado.planner.allocate.allocation import allocate
from cortado.planner.sensitivity.candidates import Candidate, Choices


@dataclass(frozen=True)
class Plan:
    """A candidate for each weight, by its path.  Damage in nats, `constant` times the sum of the candidates'."""

    chosen: dict[str, Candidate]
    constant: float = 1.0

    @property
    def size_bytes(self) -> int:
        """Of the weights' records."""
        return sum(one.size_bytes for one in self.chosen.values())

    @property
    def predicted_kl(self) -> float:
        """Nats that the answers are predicted to move by."""
        return self.constant * sum(one.predicted_kl for one in self.chosen.values())

    def recipe(self) -> Recipe:
        """The ways as stages, each for the weights that take it."""
        by_candidate: dict[str, list[str]] = {}
        for path, one in self.chosen.items():
            if one.way:
                by_candidate.setdefault(one.way, []).append(path)
        stages: list[Method] = []
        for way, paths in by_candidate.items():
            where = ", ".join(paths)
            stages += [dataclasses.replace(stage, where=where) for stage in read_recipe(way).stages]
        return Recipe(tuple(stages), name="plan")


def plan_for(choices: Sequence[Choices], most_bytes: float, constant: float = 1.0) -> Plan | None:
    """The plan of least predicted KL whose weights take at most so many bytes; None where none does."""
    chosen = allocate(choices, most_bytes)
    return None if chosen is None else Plan(chosen, constant)
