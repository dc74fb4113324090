"""Plan: which way each weight is held, as a recipe that anyone can read, run and keep."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from cortado.method import Method
from cortado.planner.allocation import allocate
from cortado.planner.candidates import Candidate, Choices
from cortado.recipe import Recipe, read


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
    def damage(self) -> float:
        """Nats that the answers are predicted to move by."""
        return self.constant * sum(one.damage for one in self.chosen.values())

    def recipe(self) -> Recipe:
        """The ways as stages, each for the weights that take it."""
        by_way: dict[str, list[str]] = {}
        for path, one in self.chosen.items():
            if one.way:
                by_way.setdefault(one.way, []).append(path)
        stages: list[Method] = []
        for way, paths in by_way.items():
            where = ", ".join(paths)
            stages += [dataclasses.replace(stage, where=where) for stage in read(way).stages]
        return Recipe(tuple(stages), name="plan")


def plan_for(choices: Sequence[Choices], most_bytes: float, constant: float = 1.0) -> Plan | None:
    """The plan of least damage whose weights take at most so many bytes; None where none does."""
    chosen = allocate(choices, most_bytes)
    return None if chosen is None else Plan(chosen, constant)
