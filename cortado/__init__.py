"""Cortado makes trained PyTorch networks small and fast, and proves it."""

from cortado.compress import compress
from cortado.errors import CortadoError
from cortado.file.artifact import load, save
from cortado.file.inspection import inspect
from cortado.forms.form import Form
from cortado.job import Job
from cortado.measure import check_stated
from cortado.method import Method, knob
from cortado.network.profile import profile
from cortado.recipe import Recipe
from cortado.report import Report
from cortado.scores.score import Score as WeightScore
from cortado.task import Data, Score, Task

__all__ = [
    "CortadoError", "Data", "Form", "Job", "Method", "Recipe", "Report", "Score", "Task", "WeightScore",
    "check_stated", "compress", "inspect", "knob", "load", "profile", "save",
]  # fmt: skip
__version__ = "0.1.0"
