"""Length, names, docstrings, and what no file may do."""

import ast
import dataclasses
import re

import pytest

import cortado
from cortado.engine.recipe import ELSEWHERE, known_methods, method_class, method_class_name
from cortado.methods.method import Method
from tests.house.source import FILES, PACKAGE, module_of, tree_of

every_file = pytest.mark.parametrize("path", FILES, ids=module_of)
BANNED_NAMES = {"utils", "util", "common", "helper", "helpers", "misc", "base", "manager", "tools", "core"}
LONGEST_FILE, LONGEST_FUNCTION = 300, 40


def functions_of(path):
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


@every_file
def test_file_has_at_most_300_lines(path):
    assert len(path.read_text(encoding="utf8").splitlines()) <= LONGEST_FILE


@every_file
def test_function_has_at_most_40_lines(path):
    """Its docstring is not counted."""
    for node in functions_of(path):
        doc = node.body[0] if ast.get_docstring(node) else None
        lines = node.end_lineno - node.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)
        assert lines <= LONGEST_FUNCTION, f"{node.name}: {lines} lines"


@every_file
def test_file_opens_with_what_it_is(path):
    text = path.read_text(encoding="utf8")
    if not text and path.name == "__init__.py":
        return
    assert text.startswith('"""')
    assert len(ast.get_docstring(tree_of(path)).splitlines()[0]) > 10


@every_file
def test_name_is_a_word_that_says_something(path):
    assert path.stem not in BANNED_NAMES
    assert re.fullmatch(r"[a-z][a-z0-9_]*|__init__", path.stem)


@every_file
def test_public_classes_and_functions_of_a_file_have_docstrings(path):
    """Top-level ones; a function inside the file's own use may do with its name when it is three lines."""
    for node in tree_of(path).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"class {node.name}"
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or node.end_lineno - node.lineno <= 20, f"def {node.name}"


@every_file
def test_every_argument_and_result_is_annotated(path):
    for node in functions_of(path):
        assert node.returns is not None, node.name
        for argument in (*node.args.args, *node.args.kwonlyargs):
            assert argument.annotation or argument.arg in ("self", "cls"), f"{node.name}: {argument.arg}"


@every_file
def test_nothing_is_printed_swallowed_or_loosely_loaded(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec"), node.lineno
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
            assert not all(isinstance(inner, ast.Pass) for inner in node.body), f"line {node.lineno}: swallowed"
        if isinstance(node, ast.keyword) and node.arg == "strict" and isinstance(node.value, ast.Constant):
            assert node.value.value is True or not is_load(path, node), f"line {node.value.lineno}: strict=False"


def is_load(path, keyword) -> bool:
    """Whether the keyword belongs to load_state_dict."""
    calls = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call) and keyword in n.keywords]
    return any(isinstance(call.func, ast.Attribute) and call.func.attr == "load_state_dict" for call in calls)


@every_file
def test_no_default_is_mutable(path):
    for node in functions_of(path):
        for default in (*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)):
            assert not isinstance(default, (ast.List, ast.Dict, ast.Set)), node.name


@every_file
def test_asserts_are_about_types_and_not_about_users(path):
    """An assert may tell the type checker what is known (is not None, isinstance, a literal of ours), nothing else."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert):
            text = ast.unparse(node.test)
            assert " is not None" in text or text.startswith("isinstance(") or "== INTEGERS" in text, (
                f"line {node.lineno}: {text}"
            )


@every_file
def test_file_speaks_of_no_machine_and_no_issue(path):
    text = path.read_text(encoding="utf8")
    assert not re.search(r"/(work|home|root)/|issue #?\d|TODO|FIXME|XXX", text)


@pytest.mark.parametrize("name", known_methods())
def test_method_file_defines_the_class_its_path_says(name):
    kind = method_class(name)
    assert issubclass(kind, Method) and kind.name() == name
    place = f"cortado.methods.{name.replace('/', '.')}:{method_class_name(name)}"
    assert kind.__doc__ and f"{kind.__module__}:{kind.__name__}" == ELSEWHERE.get(name, place)
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize("name", known_methods())
def test_every_knob_says_what_it_means(name):
    for field in dataclasses.fields(method_class(name)):
        assert field.metadata.get("help"), field.name


def test_public_names_are_those_of_the_face():
    wanted = {
        "CortadoError", "Data", "Form", "Job", "Method", "Recipe", "Report", "Metric", "Task",
        "compress", "inspect", "knob", "load", "profile", "save",
    }  # fmt: skip
    assert wanted <= set(cortado.__all__)
    assert len(set(cortado.__all__)) == len(cortado.__all__)
    for name in cortado.__all__:
        assert getattr(cortado, name).__doc__, name


def test_package_data_are_declared():
    """Files beside the code travel with the package."""
    declared = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf8")
    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so"):
            folder = "" if path.parent == PACKAGE else f"{path.parent.name}/"
            assert f'"{folder}*{path.suffix or path.name}"' in declared, path.name
