"""Whole: what a killed process left is cleared away, and what lives is left alone."""

import os
import subprocess
import sys

import pytest

from cortado.errors import BadValue
from cortado.file.whole import check_writable, make_folder, write_whole
from cortado.runtimes.folder import FACTS, whole_folder


@pytest.fixture
def ended():
    """The number of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_partial_files_of_ended_processes_are_cleared_away(tmp_path, ended):
    for left in (f".a.{ended}.part", f".a.{os.getppid()}.part", f".b.{ended}.part"):
        (tmp_path / left).write_text("half")
    write_whole(tmp_path / "a", b"whole")
    assert names(tmp_path) == sorted([f".a.{os.getppid()}.part", f".b.{ended}.part", "a"])


def test_names_with_signs_of_patterns_are_names(tmp_path, ended):
    (tmp_path / f".a.{ended}.part").write_text("half")
    write_whole(tmp_path / "[a]*", b"whole")
    assert names(tmp_path) == [f".a.{ended}.part", "[a]*"]


def test_folder_check_leaves_nothing_behind(tmp_path, ended):
    (tmp_path / f".cortado.{ended}.part").mkdir()
    check_writable(tmp_path / "new", "test")
    assert names(tmp_path) == []


def test_folder_killed_while_it_was_exchanged_can_be_written_again(tmp_path, ended):
    for left in (f".net.{ended}.part", f".net.before.{ended}.part"):
        (tmp_path / left).mkdir()
        (tmp_path / left / FACTS).write_text("{}")
    with whole_folder(tmp_path / "net") as partial:
        (partial / FACTS).write_text("{}")
    assert names(tmp_path) == ["net"]
    with whole_folder(tmp_path / "net") as partial:
        (partial / FACTS).write_text("again")
    assert names(tmp_path) == ["net"] and (tmp_path / "net" / FACTS).read_text() == "again"


def test_full_disk_in_an_export_is_reported_and_the_old_folder_stays(tmp_path):
    with whole_folder(tmp_path / "net") as partial:
        (partial / FACTS).write_text("{}")
    with (
        pytest.raises(BadValue, match="net cannot be written .No space left on device"),
        whole_folder(tmp_path / "net"),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["net"] and (tmp_path / "net" / FACTS).read_text() == "{}"


def test_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadValue, match="cannot be made"):
        make_folder(tmp_path / "file" / "inner")
