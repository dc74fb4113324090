"""Cortado makes trained PyTorch networks small and fast, and proves it.

>>> small, report = cortado.compress(net, task, "quantize/weights bits=4")
>>> print(report)
"""

import logging
from typing import Any

from cortado.blame.blame import blame
from cortado.engine.compared_recipes import compare_recipes
from cortado.engine.compress import compress
from cortado.engine.job import Job
from cortado.engine.recipe import Recipe
from cortado.engine.verify import verify
from cortado.errors import CortadoError
from cortado.file.artifact import load, save
from cortado.file.inspection import inspect
from cortado.importance.importance import Importance
from cortado.knobs.knob import knob
from cortado.methods.method import Method
from cortado.nets.from_onnx.network import load_onnx
from cortado.network.profile.profile import profile
from cortado.parts.forms.form import Form
from cortado.planner.planned import plan
from cortado.planner.search.trial_search import search
from cortado.renamed import FACE, current
from cortado.report.kept_gain import kept_gain
from cortado.report.report import Report
from cortado.report.score_table import compare_networks as compare
from cortado.runtimes.export import export
from cortado.runtimes.file_bench import bench_file as bench
from cortado.task.data import Data
from cortado.task.measure import check_stated
from cortado.task.metric import Metric
from cortado.task.move import Move
from cortado.task.outputs.boxes import Boxes
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.detected import Detected
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.outputs import Outputs
from cortado.task.outputs.tokens import Tokens
from cortado.task.task import Task
from cortado.training.objectives.objective import Objective, Player, Taps, TrainingStep

__all__ = [
    "Boxes", "Classes", "CortadoError", "Data", "Detected", "Form", "Importance", "Job", "Method", "Metric", "Move", "Numbers",
    "Objective", "Outputs", "Player", "Recipe", "Report", "Taps", "Task", "Tokens", "TrainingStep",
    "bench", "blame", "check_stated", "compare", "compare_recipes", "compress", "export", "inspect", "kept_gain", "knob", "load",
    "load_onnx", "plan", "profile", "save", "search", "verify",
]  # fmt: skip
__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> Any:
    """Return what an old name of the package stands for, with a warning."""
    if name in FACE:
        return globals()[current("cortado", name, FACE)]
    raise AttributeError(f"module 'cortado' has no attribute {name!r}")


# Whoever uses the library sees its lines by configuring logging.
logging.getLogger("cortado").addHandler(logging.NullHandler())
