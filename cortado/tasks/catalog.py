"""The built-in tasks by name."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from cortado.errors import BadTask
from cortado.task.task import Task
from cortado.tasks import bccd, camvid, cifar10, digits, folder, mnist

TASKS: dict[str, Callable[..., Task]] = {
    "digits": digits.task,
    "mnist": mnist.task,
    "cifar10": cifar10.task,
    "camvid": camvid.task,
    "bccd": bccd.task,
    "folder": folder.task,
}


def built_in(name: str, **options: Any) -> Task:
    """Return the task `name`, made with `options` (`seed`, and `augment` if the task has it).

    Raises BadTask for an unknown task or option, suggesting the closest, or if the data are unavailable.
    """
    if name not in TASKS:
        raise BadTask(f"task: there is no built-in task {name!r}.{near_names(name, list(TASKS))}")
    known = list(inspect.signature(TASKS[name]).parameters)
    for option in options:
        if option not in known:
            raise BadTask(f"task: {name} has no option {option!r}.{near_names(option, known)}")
    return TASKS[name](**options)


def near_names(word: str, known: list[str]) -> str:
    """Return the end of an error message: a suggestion, and all known names."""
    close = difflib.get_close_matches(word.lower(), known, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return f"{guess} There are: {', '.join(known)}."
