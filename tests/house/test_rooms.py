"""Rooms: imports point down the floors of docs/architecture.md, never up and never in a circle."""

import ast

from bench.house_counts import HOUSE, House, circles
from bench.house_tables import layer_tables, operator_tables
from tests.house.offenders import listed

LISTING = {
    "cortado.cli": {"cortado"},
    "cortado.engine.recipe": {"cortado.methods"},
    "cortado.importance.importance": {"cortado.importance"},
    "cortado.training.objectives.objective": {"cortado.training.objectives"},
    "cortado.file.placed": {"cortado.parts.activations", "cortado.parts.blocks"},
    "cortado.file.schema": {"cortado.parts.forms"},
}
"""What lists a folder's files imports the folder itself, and the command line the face, for its version."""
MOST_LOOSE = 9
MOST_VIEWS = 5
MOST_SHARED_FUNCTIONS = 14


def test_every_file_lies_in_a_room_and_every_room_has_files():
    homeless = [one for one in HOUSE.modules if not HOUSE.room_of(one) and not HOUSE.is_face(one)]
    empty = set(HOUSE.floors) - {HOUSE.room_of(module) for module in HOUSE.modules}
    assert not homeless and not empty, listed("no room", homeless) + listed("no file", empty)


def test_imports_point_down():
    found = HOUSE.upward_imports()
    assert not found, listed("imports that do not point down", found)


def test_no_circle_between_files():
    found = HOUSE.file_circles()
    assert not found, listed("circles between files", found)


def test_no_circle_between_rooms():
    found = HOUSE.room_circles()
    assert not found, listed("circles between rooms", found)


def test_files_import_files_and_not_folders():
    found = [
        f"{module} imports {other}"
        for module, others in HOUSE.imports.items()
        for other in others - LISTING.get(module, set())
        if HOUSE.is_face(other)
    ]
    assert not found, listed("import the defining file", found)


def test_few_files_lie_loose_at_the_top():
    found = HOUSE.loose_files()
    assert len(found) <= MOST_LOOSE, listed(f"more than {MOST_LOOSE} loose files", found)


def test_few_places_construct_a_view():
    found = HOUSE.view_constructions()
    assert len(found) <= MOST_VIEWS, listed(f"more than {MOST_VIEWS} places construct a View", found)


def test_no_class_name_is_defined_twice():
    found = [f"{name}: {', '.join(files)}" for name, files in HOUSE.defined_twice(ast.ClassDef).items()]
    assert not found, listed("class names defined in two files or more", found)


def test_few_function_names_are_defined_twice():
    found = [f"{name}: {', '.join(files)}" for name, files in HOUSE.defined_twice(ast.FunctionDef).items()]
    assert len(found) <= MOST_SHARED_FUNCTIONS, listed("function names defined in two files or more", found)


def test_a_circle_is_found_and_told_by_its_way():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b -> c -> b"]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_what_is_known_of_layer_classes_stands_in_layers():
    found = layer_tables(HOUSE)
    assert not found, listed("tables of layer classes outside layers/", found)


def test_what_is_known_of_operators_stands_in_the_graph():
    found = operator_tables(HOUSE)
    assert not found, listed("tables of operators outside network/graph/", found)


def test_tables_are_seen(tmp_path):
    written = {
        "network/graph/operators/some.py": 'FACTS = known("relu add", role=1)',
        "asks.py": "from torch import nn\nBOTH = (nn.Linear, nn.Conv2d)\nfound = isinstance(layer, BOTH)",
        "names.py": 'CLIPS = {"relu", "add_"}\nOTHERS = {"relu", "sum of it all"}',
        "layers/some.py": "from torch import nn\nBOTH = (nn.Linear, nn.Conv2d)",
    }
    for name, text in written.items():
        path = tmp_path / "cortado" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert [one.split(": ")[0] for one in layer_tables(House(tmp_path))] == ["cortado/asks.py:2", "cortado/asks.py:3"]
    assert [one.split(": ")[0] for one in operator_tables(House(tmp_path))] == ["cortado/names.py:1"]
