"""Remembering: the task of a search, with what its trials found and the next ones need again."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from cortado.task.task import Found, Task

MOST_KEPT = 4
"""Networks of which a search keeps what it found."""


@dataclass(frozen=True)
class RememberingTask(Task):
    """The task of one search with a cache of choices and statistics for the last few networks: each trial that starts from
    the original network needs the same ones."""

    kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, task: Task) -> "RememberingTask":
        """Return the task with an empty cache."""
        return cls(**{one.name: getattr(task, one.name) for one in fields(Task)})

    def keep(self, key: str, found: Any) -> None:
        """Store what was found and drop the oldest."""
        self.kept[key] = found
        while len(self.kept) > MOST_KEPT:
            del self.kept[next(iter(self.kept))]

    def recall(self, key: Callable[[], str], make: Callable[[], Found]) -> Found:
        name = key()
        if name not in self.kept:
            self.keep(name, make())
        found: Found = self.kept[name]
        return found
