"""Seen: tasks with a calibration part of their own, for methods that observe a network before they change it."""

from cortado.task.task import Data, Task


def task_of(inputs, labels, **more):
    quarter = len(inputs) // 4
    parts = [(inputs[at : at + quarter], labels[at : at + quarter]) for at in range(0, 3 * quarter, quarter)]
    return Task(*parts, calibration=Data(inputs[3 * quarter :], labels[3 * quarter :]), **more)
