"""Style: lengths, names, docstrings, and what no file may do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cortado
from bench.house_counts import HOUSE
from cortado.engine.recipe import ELSEWHERE, known_methods, method_class, method_class_name
from cortado.knobs.nested import knobs_of
from cortado.methods.method import Method
from tests.house.offenders import listed

BANNED_NAMES = {"utils", "util", "common", "helper", "helpers", "misc", "base", "manager", "tools", "core"}
LONGEST_FILE, LONGEST_FUNCTION = 300, 40


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Each node of these kinds in the package, with its place."""
    for path, found in HOUSE.nodes.items():
        for node in found:
            if isinstance(node, kinds):
                yield f"{named(path)}:{getattr(node, 'lineno', '')}", node


def named(path: Path) -> str:
    return str(path.relative_to(HOUSE.root))


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    return nodes(ast.FunctionDef, ast.AsyncFunctionDef)


def test_files_have_at_most_300_lines():
    found = [f"{named(path)}: {len(text.splitlines())}" for path, text in HOUSE.texts.items()]
    found = [line for line in found if int(line.rpartition(" ")[2]) > LONGEST_FILE]
    assert not found, listed(f"files longer than {LONGEST_FILE} lines", found)


def test_functions_have_at_most_40_lines():
    """Docstrings are not counted."""
    found = []
    for place, node in functions():
        doc = node.body[0] if ast.get_docstring(node) else None
        lines = node.end_lineno - node.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)
        found += [f"{place} {node.name}: {lines}"] if lines > LONGEST_FUNCTION else []
    assert not found, listed(f"functions longer than {LONGEST_FUNCTION} lines", found)


def test_files_have_names_that_say_something_and_open_with_what_they_are():
    found = []
    for path, text in HOUSE.texts.items():
        if path.stem in BANNED_NAMES or not re.fullmatch(r"[a-z][a-z0-9_]*|__init__", path.stem):
            found.append(f"{named(path)}: its name")
        if text or path.name != "__init__.py":
            first = (ast.get_docstring(HOUSE.trees[path]) or "").partition("\n")[0]
            found += [] if text.startswith('"""') and len(first) > 10 else [f"{named(path)}: its first line"]
    assert not found, listed("files that do not say what they are", found)


def test_public_classes_and_functions_have_docstrings():
    """Top-level ones; a function of twenty lines or fewer may do with its name."""
    found = []
    for path, tree in HOUSE.trees.items():
        for node in tree.body:
            long = isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 20
            if (long or isinstance(node, ast.ClassDef)) and node.name[0] != "_" and not ast.get_docstring(node):
                found.append(f"{named(path)}:{node.lineno} {node.name}")
    assert not found, listed("no docstring", found)


def test_every_argument_and_result_is_annotated():
    found = []
    for place, node in functions():
        arguments = [*node.args.args, *node.args.kwonlyargs]
        bare = [one.arg for one in arguments if not one.annotation and one.arg not in ("self", "cls")]
        found += [f"{place} {node.name}: {name}" for name in bare + ["its result"] * (node.returns is None)]
    assert not found, listed("not annotated", found)


def test_nothing_is_printed_swallowed_or_loosely_loaded():
    found = []
    for place, node in nodes(ast.Call, ast.ExceptHandler):
        if isinstance(node, ast.ExceptHandler):
            found += [f"{place}: a bare except"] if node.type is None else []
            found += [f"{place}: swallowed"] if all(isinstance(inner, ast.Pass) for inner in node.body) else []
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        found += [f"{place}: {name}"] if isinstance(node.func, ast.Name) and name in ("print", "eval", "exec") else []
        loose = [one for one in node.keywords if one.arg == "strict" and getattr(one.value, "value", None) is not True]
        found += [f"{place}: not strict"] if name == "load_state_dict" and loose else []
    assert not found, listed("printed, swallowed or loosely loaded", found)


def test_no_default_is_mutable():
    found = [
        f"{place} {node.name}"
        for place, node in functions()
        for default in (*node.args.defaults, *node.args.kw_defaults)
        if isinstance(default, (ast.List, ast.Dict, ast.Set))
    ]
    assert not found, listed("mutable defaults", found)


def test_asserts_are_about_types_and_not_about_users():
    """An assert may tell the type checker what is known (is not None, isinstance, a literal of ours), nothing else."""
    found = [f"{place}: {ast.unparse(node.test)}" for place, node in nodes(ast.Assert)]
    typed = re.compile(r":\d+: isinstance\(| is not None|== INTEGERS")
    assert not (wrong := [line for line in found if not typed.search(line)]), listed("asserts", wrong)


def test_method_files_define_the_class_that_their_path_names_with_words_for_every_knob():
    found = []
    for name in known_methods():
        kind = method_class(name)
        place = ELSEWHERE.get(name, f"cortado.methods.{name.replace('/', '.')}:{method_class_name(name)}")
        fits = issubclass(kind, Method) and kind.name() == name and f"{kind.__module__}:{kind.__name__}" == place
        found += [] if fits and kind.__doc__ and kind.__dataclass_params__.frozen else [f"{name}: its class"]
        found += [f"{name}: {one.name}" for one in knobs_of(kind).values() if not one.facts.get("help")]
    assert not found, listed("methods and knobs", found)


def test_public_names_are_those_of_the_face():
    wanted = {
        "CortadoError", "Data", "Form", "Job", "Method", "Recipe", "Report", "Metric", "Task",
        "compress", "inspect", "knob", "load", "profile", "save",
    }  # fmt: skip
    assert wanted <= set(cortado.__all__)
    assert len(set(cortado.__all__)) == len(cortado.__all__)
    silent = [name for name in cortado.__all__ if not getattr(cortado, name).__doc__]
    assert not silent, listed("no docstring", silent)


def test_package_data_are_declared():
    """Files beside the code travel with the package."""
    declared = (HOUSE.root / "pyproject.toml").read_text(encoding="utf8")
    folder = HOUSE.root / "cortado"
    beside = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".so")]
    kinds = {f"{(path.parent / '*').relative_to(folder)}{path.suffix}" for path in beside}
    found = [kind for kind in kinds if f'"{kind}"' not in declared]
    assert not found, listed("not in package-data of pyproject.toml", found)
