"""House counts: what a checkout's own files are made of - imports, names, words, lines - counted from the text alone."""

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.old_words import OLD_NAMES, OLD_TEXT

ROOT = Path(__file__).parents[1]
OLD_WORDS_ALLOWED = ("docs/results.md", "docs/old_names.md")
"""Pages that may contain old words: stored results keep the words of the code that measured them, and the page of old
names lists them beside the new ones, for users of version 0.1."""
UNDERSTANDS = "cortado/renamed.py"
"""The one file that may hold old words."""


@dataclass(frozen=True)
class House:
    """A checkout, looked at without importing it."""

    root: Path = ROOT

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every Python file of the package."""
        return tuple(sorted((self.root / "cortado").rglob("*.py")))

    @cached_property
    def texts(self) -> dict[Path, str]:
        return {path: path.read_text(encoding="utf8") for path in self.files}

    @cached_property
    def trees(self) -> dict[Path, ast.Module]:
        return {path: ast.parse(text) for path, text in self.texts.items()}

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Module -> file, by its dotted name."""
        return {self.module_of(path): path for path in self.files}

    def module_of(self, path: Path) -> str:
        """cortado/parts/forms/form.py -> cortado.parts.forms.form."""
        return ".".join(path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__")

    @cached_property
    def nodes(self) -> dict[Path, list[ast.AST]]:
        """Every node of each file's syntax tree."""
        return {path: list(ast.walk(tree)) for path, tree in self.trees.items()}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Module -> the modules of the package that it imports, anywhere in it."""
        return {module: self.imports_of(path) for module, path in self.modules.items()}

    def imports_of(self, path: Path) -> set[str]:
        found: set[str] = set()
        for node in self.nodes[path]:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name if name in self.modules else node.module for name in inner}
        return {name for name in found if name in self.modules} - {self.module_of(path)}

    # Rooms

    @cached_property
    def floors(self) -> dict[str, int]:
        """Room -> floor, from the table in docs/architecture.md; a room is a folder or a single file of cortado/."""
        plan = (self.root / "docs" / "architecture.md").read_text(encoding="utf8")
        found: dict[str, int] = {}
        for line in plan.split("```floors\n")[1].split("```")[0].splitlines():
            floor, *rooms = line.split()
            found |= {room.removesuffix("/"): int(floor) for room in rooms}
        return found

    def room_of(self, module: str) -> str | None:
        """Return the longest room of the table that the file lies in, or None."""
        place = self.modules[module].relative_to(self.root / "cortado")
        return next((str(one) for one in (place, *place.parents) if str(one) in self.floors), None)

    def room_imports(self) -> list[tuple[str, str, str, str]]:
        """Return each import from room to room: (room, its module, the other room, the module there)."""
        found = []
        for module, others in self.imports.items():
            for other in sorted(others):
                here, there = self.room_of(module), self.room_of(other)
                if here is not None and there is not None and here != there:
                    found.append((here, module, there, other))
        return found

    def upward_imports(self) -> list[str]:
        """Return the imports between rooms that do not lead to a lower floor."""
        return [
            f"{module} ({here}, floor {self.floors[here]}) imports {other} ({there}, floor {self.floors[there]})"
            for here, module, there, other in self.room_imports()
            if self.floors[there] >= self.floors[here]
        ]

    def file_circles(self) -> list[str]:
        """Return the circles among files.  A folder's `__init__.py` is what it lists, and no step of a circle."""
        return circles({m: {o for o in others if not self.is_face(o)} for m, others in self.imports.items()})

    def room_circles(self) -> list[str]:
        """Return the circles among rooms."""
        arrows: dict[str, set[str]] = defaultdict(set)
        for here, _, there, _ in self.room_imports():
            arrows[here].add(there)
        return circles(arrows)

    def is_face(self, module: str) -> bool:
        return self.modules[module].name == "__init__.py"

    # Names

    def defined_twice(self, kind: type[ast.AST]) -> dict[str, list[str]]:
        """Return the public top-level names of one kind (ClassDef, FunctionDef) that two files or more define."""
        places: dict[str, set[str]] = defaultdict(set)
        for path, tree in self.trees.items():
            for node in tree.body:
                if isinstance(node, kind) and not node.name.startswith("_"):  # type: ignore[attr-defined]
                    places[node.name].add(str(path.relative_to(self.root / "cortado")))  # type: ignore[attr-defined]
        return {name: sorted(found) for name, found in sorted(places.items()) if len(found) > 1}

    def loose_files(self) -> list[str]:
        """Return the files that lie in no room, the package's face aside."""
        return [path.name for path in self.files if path.parent.name == "cortado" and path.name != "__init__.py"]

    def view_constructions(self) -> list[str]:
        """Return the places that construct a View: file and line."""
        return [
            f"{path.relative_to(self.root)}:{node.lineno}"
            for path, nodes in self.nodes.items()
            for node in nodes
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "View"
        ]

    def concrete_forms_asked_for(self) -> list[str]:
        """Return the places outside parts/ that ask whether a form is of a concrete class: file, line and class."""
        forms = self.root / "cortado" / "parts" / "forms"
        concrete = {
            node.name
            for path in forms.glob("*.py")
            for node in self.trees[path].body
            if isinstance(node, ast.ClassDef) and path.stem not in ("form", "latent", "lattice", "attach")
        }
        asked = []
        for path, nodes in self.nodes.items():
            if (self.root / "cortado" / "parts") in path.parents:
                continue
            for node in nodes:
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                    names = {one.id for one in ast.walk(node.args[1]) if isinstance(one, ast.Name)}
                    asked += [
                        f"{path.relative_to(self.root)}:{node.lineno}: {name}" for name in sorted(names & concrete)
                    ]
        return asked

    # Words

    def old_words_in_code(self) -> list[str]:
        """Return the old words in names, docstrings, comments and messages of the package."""
        kernels = [path for end in ("cpp", "hpp") for path in sorted((self.root / "cortado").rglob(f"*.{end}"))]
        texts = self.texts | {path: path.read_text(encoding="utf8") for path in kernels}
        return [
            f"{path.relative_to(self.root)}:{line}: {word}"
            for path, text in texts.items()
            if str(path.relative_to(self.root)) != UNDERSTANDS
            for line, word in sorted({*old_words(text), *self.old_names(path)})
        ]

    def old_names(self, path: Path) -> list[tuple[int, str]]:
        """Return the identifiers of a file in which an old word is a part: (line, identifier)."""
        found = []
        for node in self.nodes.get(path, ()):
            for field in ("id", "attr", "arg", "name"):
                name = getattr(node, field, None)
                if isinstance(name, str) and OLD_NAMES & set(parts_of(name)) and hasattr(node, "lineno"):
                    found.append((node.lineno, name))
        return found

    def old_words_in_pages(self) -> list[str]:
        """Return the old words in README and docs."""
        pages = [self.root / "README.md", *sorted((self.root / "docs").rglob("*.md"))]
        return [
            f"{path.relative_to(self.root)}:{line}: {word}"
            for path in pages
            if str(path.relative_to(self.root)) not in OLD_WORDS_ALLOWED
            for line, word in sorted(set(old_words(path.read_text(encoding="utf8"))))
        ]

    # Size

    def lines(self) -> int:
        """Return how many lines the package's Python files have."""
        return sum(len(text.splitlines()) for text in self.texts.values())

    def touched_by(self, word: str, start: str = "cortado.commands.compressing") -> list[str]:
        """Return the modules that a value called `word` can come through on its way from the command line.

        The walk begins at the command's file and goes from a file to each file that it imports, but only into files
        that handle the value under this name (a variable, an argument, an attribute, a keyword): others cannot pass it on.
        """
        handles = {module for module, path in self.modules.items() if word in self.names[path]}
        seen, ahead = set[str](), [start]
        while ahead:
            module = ahead.pop()
            if module in handles and module not in seen:
                seen.add(module)
                ahead += self.imports[module]
        return sorted(seen)

    @cached_property
    def names(self) -> dict[Path, set[str]]:
        """The variables, arguments, attributes and keywords of each file."""
        fields = ("id", "attr", "arg")
        return {p: {getattr(n, one, "") for n in nodes for one in fields} for p, nodes in self.nodes.items()}


def parts_of(name: str) -> list[str]:
    """Return the words of an identifier in small letters: PlainNet -> plain, net; said_so -> said, so."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def old_words(text: str) -> list[tuple[int, str]]:
    """Return each old word of a text with its line."""
    return [
        (text.count("\n", 0, match.start()) + 1, match.group().replace("\n", " ")) for match in OLD_TEXT.finditer(text)
    ]


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Return one circle for each place where a walk along the arrows comes back to itself, as "a -> b -> a"."""
    found: list[str] = []
    state: dict[str, bool] = {}

    def visit(one: str, trail: tuple[str, ...]) -> None:
        if state.get(one) is False:
            found.append(" -> ".join((*trail[trail.index(one) :], one)))
        elif one not in state:
            state[one] = False
            for other in sorted(arrows.get(one, ())):
                visit(other, (*trail, one))
            state[one] = True

    for one in sorted(arrows):
        visit(one, ())
    return found


HOUSE = House()
"""This checkout."""
