"""Building the kernels: compiled once, shared, and honest about the copy."""

import json
import subprocess
from pathlib import Path

import pytest

from cortado.native import build
from tests.fresh import fresh

STATE = """
import json, os, sys
os.environ.update(json.loads(sys.argv[1]))
from cortado.native.build import native_state
print(native_state())
"""
TWO_AT_ONCE = """
import json, os, sys
from dataclasses import replace
os.environ.update(json.loads(sys.argv[1]))
from cortado.native import build
build.CODERS = replace(build.CODERS, flags=("-O0", *build.CODERS.flags[1:]))
children = []
for _ in range(2):
    children.append(os.fork())
    if not children[-1]:
        print(build.native_state(), flush=True)
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""


def state_in_a_process(**changes: str) -> subprocess.CompletedProcess[str]:
    """`native_state()` of a fresh Python under a changed environment."""
    done = fresh(STATE, json.dumps(changes))
    assert done.returncode == 0, done.stderr
    return done


def test_native_state_names_the_copy_when_forced() -> None:
    done = state_in_a_process(CORTADO_NATIVE="0")
    assert done.stdout.strip() == "Python port (CORTADO_NATIVE=0)"
    assert "Warning" not in done.stderr


def test_native_state_warns_when_there_is_no_compiler(tmp_path: Path) -> None:
    done = state_in_a_process(PATH=str(tmp_path), CXX="", CORTADO_NATIVE="1")
    assert done.stdout.strip() == "Python port (no C++ compiler found)"
    assert done.stderr.count("Install g++") == 1


def test_native_state_warns_when_the_compiler_fails(tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    done = state_in_a_process(CXX=str(compiler), CORTADO_CACHE=str(tmp_path / "cache"), CORTADO_NATIVE="1")
    assert done.stdout.startswith("Python port (the C++ compiler")
    assert not list((tmp_path / "cache").glob("*"))  # nothing half-made stays behind


@pytest.mark.skipif(build.find_compiler() is None, reason="needs a C++ compiler")
def test_kernels_are_compiled_once_when_two_processes_start_together(tmp_path: Path) -> None:
    done = fresh(TWO_AT_ONCE, json.dumps({"CORTADO_CACHE": str(tmp_path), "CORTADO_NATIVE": "1"}))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["compiled kernel"] * 2
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTADO_CACHE", "/somewhere")
    assert build.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("CORTADO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert build.cache_folder() == Path("/elsewhere/cortado")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build.cache_folder() == Path.home() / ".cache" / "cortado"


def test_the_products_say_why_they_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTADO_NATIVE", "0")
    assert build.product_library() == "native kernels are switched off by CORTADO_NATIVE=0"
    monkeypatch.setenv("CORTADO_NATIVE", "1")
    monkeypatch.setenv("CORTADO_CACHE", str(tmp_path))
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert f"the C++ compiler {compiler} failed" in build.product_library()
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.product_library() == "no C++ compiler was found; install g++"


def test_the_products_are_one_file_that_says_how_to_build_it() -> None:
    text = build.product_source()
    assert text.startswith("// Build it: g++ -O3") and "-march" not in text.partition("\n")[0]
    assert '#include "' not in text and text.count("namespace cortado {") == 4
