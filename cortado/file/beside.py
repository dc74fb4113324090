"""Beside: which network a file in a bundle was made from, as the recipe and the job in its folder say."""

from pathlib import Path
from typing import Any

import yaml

JOB, RECIPE, STUDENT = "job.yaml", "recipe.yaml", "student"


def student_beside(folder: Path) -> dict[str, Any] | None:
    """Return the knobs of the last student in the recipe of a bundle; None without one, or without a recipe."""
    stages = mapping_in(folder / RECIPE).get("stages")
    named = [stage[STUDENT] for stage in stages if STUDENT in stage] if isinstance(stages, list) else []
    return dict(named[-1] or {}) if named else None


def network_beside(folder: Path) -> str:
    """Return the name of the network that the file of a bundle was made from; "" if nothing says it."""
    job, student = mapping_in(folder / JOB), student_beside(folder)
    return str((student or job).get("network") or job.get("job") or "")


def mapping_in(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file; an empty one if there is none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
