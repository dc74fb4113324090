"""Built-in tasks by name."""

import pytest

from cortado.errors import BadTask
from cortado.tasks.catalog import TASKS, built_in


def test_built_in_makes_the_task_with_its_options():
    task = built_in("digits", seed=7)
    assert task.name == "digits"
    assert task.seed == 7


def test_built_in_tasks_all_take_a_seed(data_folder):
    for name in TASKS:
        with pytest.raises(BadTask, match=rf"{name} has no option 'sede'\. Did you mean 'seed'\?"):
            built_in(name, sede=1)


def test_built_in_names_the_nearest_when_unknown():
    with pytest.raises(BadTask, match=r"no built-in task 'minst'\. Did you mean 'mnist'\? There are: digits, mnist"):
        built_in("minst")
    with pytest.raises(BadTask, match=r"'MNIST'\. Did you mean 'mnist'\?"):
        built_in("MNIST")
    with pytest.raises(
        BadTask, match=r"no built-in task 'penguins'\. There are: digits, mnist, cifar10, camvid, bccd, folder\."
    ):
        built_in("penguins")
    with pytest.raises(BadTask, match="digits has no option 'augment'"):
        built_in("digits", augment=True)
