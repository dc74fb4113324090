"""The command that lists methods and describes one."""

import pytest
import yaml
from click.testing import CliRunner

from cortado.cli import main
from cortado.commands.describing import yaml_text
from cortado.engine.recipe import known_methods, method_class
from cortado.knobs.nested import knobs_of


def test_methods_lists_every_method_with_what_it_does():
    lines = CliRunner().invoke(main, ["methods"]).output.splitlines()
    listed = [line.split()[0] for line in lines[2 : lines.index("")]]
    assert tuple(listed) == known_methods()
    assert next(line for line in lines if line.startswith("prune/weights ")).split(maxsplit=2)[1:] == [
        "lossy", "Set the least important weights to zero and keep them there."
    ]  # fmt: skip


@pytest.mark.parametrize("name", known_methods())
def test_methods_describes_every_knob_of_one(name):
    done = CliRunner().invoke(main, ["methods", name])
    assert done.exit_code == 0, done.output
    table = done.output[done.output.index("\nknob ") :].splitlines()[3:]
    assert sorted(line.split()[0] for line in table) == sorted(knobs_of(method_class(name)))


def test_methods_shows_defaults_and_ranges():
    lines = CliRunner().invoke(main, ["methods", "prune/weights"]).output.splitlines()
    assert lines[0] == "prune/weights  lossy"
    rows = {line.split()[0]: " ".join(line.split()) for line in lines if line}
    assert rows["keep"] == "keep 0.5 0 to 1 share of weights kept"
    assert rows["by"] == "by magnitude text importance measure that ranks the weights"
    assert rows["across"].startswith("across false true, false rank") and rows["of"].startswith(
        "of all all, survivors what"
    )


def test_methods_suggests_a_near_name():
    done = CliRunner().invoke(main, ["methods", "prune/weight"])
    assert done.exit_code == 1 and "Did you mean: prune/weights" in done.output


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1.0e-05"), (0.5, "0.5"), (None, "null"), (True, "true"), ((), "[]"), ("original", "original")],
)
def test_default_is_written_as_yaml(value: object, text: str) -> None:
    assert yaml_text(value) == text
    assert yaml.safe_load(text) == (list(value) if isinstance(value, tuple) else value)
