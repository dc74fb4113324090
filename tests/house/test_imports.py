"""Imports point down the floors, never up, never in a circle; neighbours leave one another alone."""

from pathlib import Path

import pytest

from tests.house.source import FILES, MODULES, imports_of, module_of

PLAN = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf8")


def floors(plan: str) -> dict[str, int]:
    """Room -> floor, from the table in the architecture page; the package's face is ""."""
    found = {}
    for line in plan.split("```floors\n")[1].split("```")[0].splitlines():
        floor, *rooms = line.split()
        found |= {room.removesuffix("/").removesuffix(".py").replace("__init__", ""): int(floor) for room in rooms}
    return found


FLOOR_OF = floors(PLAN)


def room_of(module: str) -> str:
    """cortado.parts.forms.form -> forms; cortado.errors -> errors; the face -> ""."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_file_lives_in_a_room_with_a_floor(path):
    assert room_of(module_of(path)) in FLOOR_OF


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    mine = module_of(path)
    for other in imports_of(path):
        here, there = FLOOR_OF[room_of(mine)], FLOOR_OF[room_of(other)]
        if room_of(other) == room_of(mine):
            continue
        single = "/" not in str(MODULES[other].relative_to(MODULES["cortado"].parent))
        assert there < here or (there == here and single), f"{mine} (floor {here}) imports {other} (floor {there})"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_import_files_and_not_faces(path):
    """Only what lists a folder's files may import the folder itself."""
    faces = {name for name in imports_of(path) if MODULES[name].name == "__init__.py"}
    listing = {
        "cortado.engine.recipe": {"cortado.methods"},
        "cortado.importance.importance": {"cortado.importance"},
        "cortado.training.objectives.penalty": {"cortado.training.objectives"},
        "cortado.file.schema": {"cortado.parts.forms"},
        "cortado.file.roundings": {"cortado.parts.activations"},
    }
    assert faces <= listing.get(module_of(path), set()) | (
        {"cortado"} if "from cortado import" in path.read_text() else set()
    )


def test_there_are_no_circles():
    order: list[str] = []
    state: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != 1, " -> ".join((*trail, module))
        if module in state:
            return
        state[module] = 1
        for other in sorted(imports_of(MODULES[module])):
            if MODULES[other].name != "__init__.py":
                visit(other, (*trail, module))
        state[module] = 2
        order.append(module)

    for module in MODULES:
        visit(module, ())
    assert len(order) == len(MODULES)
