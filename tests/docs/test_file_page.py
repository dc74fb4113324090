"""The page of the file format against the code: tables, the file by hand, and the reader on the page."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import cortado.parts.activations
import cortado.parts.blocks
import cortado.parts.forms
from cortado.file import layout, mix, placed
from cortado.file.contents import VERSION
from cortado.file.keys import key_of, own_kinds
from cortado.file.plane import CODECS
from cortado.file.schema import FLOAT_TYPES
from cortado.native.tables import logistic_tables
from cortado.parts.activations.quantizer import ActivationQuantizer
from cortado.parts.blocks.block import Block
from cortado.parts.blocks.exit import Exit
from cortado.parts.blocks.experts import Experts
from cortado.parts.blocks.gate import Gate
from cortado.parts.blocks.ponder import Ponder
from cortado.parts.forms.form import Form
from cortado.parts.part import FLOATS, INTEGERS, PART
from tests.docs.blocks import ROOT, blocks, run

PAGE = ROOT / "docs" / "file.md"
TEXT = PAGE.read_text(encoding="utf8")


def rows(head: str) -> list[list[str]]:
    """The cells of the table with this head."""
    lines = TEXT[TEXT.index(head) :].splitlines()[2:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the page's blocks leave behind, and the file they wrote."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        return run(PAGE) | {"file": Path("tiny.cortado").read_bytes()}


def test_hexdump_is_the_file_byte_for_byte(names: dict[str, object]) -> None:
    dump = next(block.text for block in blocks(PAGE) if block.language == "hexdump")
    pairs = [re.match(r"(?:[0-9a-f]{2}(?: |$))+", line) for line in dump.splitlines()]
    assert all(pairs)
    assert bytes.fromhex("".join(found.group() for found in pairs if found)) == names["file"]


def test_reader_of_the_page_reads_the_file(names: dict[str, object]) -> None:
    small = names["small"]
    assert isinstance(small, torch.nn.Linear)
    assert names["weight"] == small.weight.flatten().tolist()
    assert list(names["bias"]) == small.bias.tolist()  # type: ignore[call-overload]
    assert names["at"] == len(names["body"]) - 4  # type: ignore[arg-type, operator]


def test_squash_of_the_page_is_that_of_the_coder(names: dict[str, object]) -> None:
    squash, stretch = logistic_tables()
    assert names["squash"] == squash.tolist()
    listed = squash.tolist()
    for share in (0, 1, 2, 700, 32767, 32768, 50000, 65534, 65535):
        first = next((index for index, one in enumerate(listed) if one >= share), 6144)
        assert stretch[share] == min(max(first - 3072, -3072), 3071)


def test_forms_of_the_page_are_those_of_the_code() -> None:
    said = {row[0]: row[1:] for row in rows("| form | key | facts |")}
    real = {}
    for form in own_kinds(cortado.parts.forms, Form).values():
        arrays = ", ".join(f"{name}: {'form' if sort == PART else sort}" for name, sort in form.arrays.items())
        real[form.__name__.lower()] = [f"`{key_of(form).hex()}`", ", ".join(form.facts), arrays]
    assert said == real


PAIR = (nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
EXAMPLES = {
    Exit: lambda: Exit(nn.Sequential(nn.Linear(3, 3)), "0", 2, 3, 3),
    Experts: lambda: Experts(nn.Sequential(*PAIR), "0", "2", "relu", 2, 1),
    Gate: lambda: Gate(nn.Sequential(nn.Linear(3, 3)), 3),
    Ponder: lambda: Ponder(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), 2, 3),
}
"""Blocks that keep a module, around one whose layers are at the paths 0, 1, 2."""


def test_blocks_of_the_page_are_those_of_the_code() -> None:
    said = {row[0]: row[1:] for row in rows("| block | key | facts |")}
    real = {}
    for block in own_kinds(cortado.parts.blocks, Block).values():
        keeps = "yes" if block.arrays else "no"
        made = (
            EXAMPLES[block]()
            if block in EXAMPLES
            else block.from_parts(torch.Size(), dict.fromkeys(block.facts, 3), {})
        )
        own = [name for name, _ in made.named_parameters() if not name.startswith(("0.", "1.", "2."))]
        tensors = ", ".join(name.replace("exit_0", "exit_PATH") for name in own)
        real[block.__name__.lower()] = [f"`{key_of(block).hex()}`", ", ".join(block.facts), keeps, tensors]
    assert said == real


def test_quantizers_of_the_page_are_those_of_the_code() -> None:
    said = {row[0]: row[1:] for row in rows("| quantizer | key | facts |")}
    real = {}
    for kind in own_kinds(cortado.parts.activations, ActivationQuantizer).values():
        columns = [", ".join(name for name, sort in kind.arrays.items() if sort == one) for one in (FLOATS, INTEGERS)]
        real[kind.__name__.lower()] = [f"`{key_of(kind).hex()}`", ", ".join(kind.facts), *columns]
    assert said == real


def test_limits_of_the_page_are_those_of_the_code() -> None:
    assert (placed.MOST_PLACES, placed.MOST_FACT, layout.DEEPEST) == (2**17, 2**24, 8)
    assert "at most 2^17" in TEXT and "at most 2^24" in TEXT and "a ninth block at one place" in TEXT
    assert f"# The .cortado file, version {VERSION}" in TEXT


def test_codecs_of_the_page_are_those_of_the_code() -> None:
    said = {row[1]: int(row[0]) for row in rows("| codec | what |")}
    assert {name: number for name, number in said.items() if number < 6} == CODECS


def test_presets_of_the_page_are_those_of_the_coder() -> None:
    assert [tuple(int(cell) for cell in row[1:]) for row in rows("| preset | limit |")] == list(mix.PRESETS)


def test_float_types_of_the_page_are_in_the_order_of_the_code() -> None:
    words = ", ".join(f"{number} {str(one).removeprefix('torch.')}" for number, one in enumerate(FLOAT_TYPES))
    assert words in TEXT
