"""Plan: the chosen candidate of each weight, and the recipe that applies them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from cortado.engine.recipe import Recipe, read_recipe
from cortado.methods.method import Method
from cortado.planner.allocate.allocation import allocate
from cortado.planner.sensitivity.candidates import Candidate, Choices


@dataclass(frozen=True)
class Plan:
    """A candidate for each weight, by path.  The predicted KL is `constant` times the sum of the candidates'."""

    chosen: dict[str, Candidate]
    constant: float = 1.0

    @property
    def size_bytes(self) -> int:
        """Return the bytes of the weights' records."""
        return sum(one.size_bytes for one in self.chosen.values())

    @property
    def predicted_kl(self) -> float:
        """Return the predicted KL of the outputs, in nats."""
        return self.constant * sum(one.predicted_kl for one in self.chosen.values())

    def recipe(self) -> Recipe:
        """Return the candidates' recipes as stages, each for its weights."""
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
    """Return the plan of least predicted KL within `most_bytes`; None if there is none."""
    chosen = allocate(choices, most_bytes)
    return None if chosen is None else Plan(chosen, constant)
