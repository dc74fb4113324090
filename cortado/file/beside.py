"""Beside: which network a file in a bundle was made from, as the recipe and the job in its folder say."""

from pathlib import Path
from typing import Any

import yaml

from cortado.yaml_text import read_yaml

JOB, RECIPE = "job.yaml", "recipe.yaml"
STUDENT, CASCADE = "student", "conditional/cascade"
RESTARTS = (STUDENT, CASCADE)
"""The stages that put another network in the place of the one so far."""


def restarts_beside(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the stages of a bundle's recipe that put another network in place, by name and knobs, in order."""
    stages = mapping_in(folder / RECIPE).get("stages")
    named = stages if isinstance(stages, list) else []
    return [(name, dict(stage[name] or {})) for stage in named for name in RESTARTS if name in stage]


def network_beside(folder: Path) -> str:
    """Return the name of the network that the file of a bundle was made from; "" if nothing says it."""
    job = mapping_in(folder / JOB)
    found = str(job.get("network") or job.get("job") or "")
    for name, knobs in restarts_beside(folder):
        before = ", ".join(map(str, knobs.get("members", ())))
        found = str(knobs.get("network", "")) if name == STUDENT else f"a cascade of {before}, {found}"
    return found


def mapping_in(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file; an empty one if there is none."""
    try:
        found = read_yaml(path.read_text(encoding="utf8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
