"""The kernels: compiled once and shared, else those of a wheel, else a reason."""

import ctypes
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


def broken_compiler(folder: Path) -> str:
    compiler = folder / "broken"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    return str(compiler)


def test_native_state_says_that_kernels_are_switched_off() -> None:
    done = state_in_a_process(CORTADO_NATIVE="0")
    assert done.stdout.strip() == "no kernel (native kernels are switched off by CORTADO_NATIVE=0)"
    assert "Warning" not in done.stderr


def test_native_state_warns_when_there_is_no_compiler(tmp_path: Path) -> None:
    done = state_in_a_process(PATH=str(tmp_path), CXX="", CORTADO_NATIVE="1")
    assert done.stdout.strip() == "no kernel (no C++ compiler was found; install g++)"
    assert done.stderr.count("plain codecs and are larger") == 1


def test_native_state_warns_when_the_compiler_fails(tmp_path: Path) -> None:
    compiler = broken_compiler(tmp_path)
    done = state_in_a_process(CXX=compiler, CORTADO_CACHE=str(tmp_path / "cache"), CORTADO_NATIVE="1")
    assert done.stdout.startswith(f"no kernel (the C++ compiler {compiler} failed")
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
    compiler = broken_compiler(tmp_path)
    monkeypatch.setenv("CXX", compiler)
    assert f"the C++ compiler {compiler} failed" in build.product_library()
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.product_library() == "no C++ compiler was found; install g++"


def test_the_products_are_one_file_that_says_how_to_build_it() -> None:
    text = build.product_source()
    assert text.startswith("// Build it: g++ -O3") and "-march" not in text.partition("\n")[0]
    assert '#include "' not in text and text.count("namespace cortado {") == 4


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> build.Library:
    """A library of one function, and a folder of its own for what is compiled."""
    (tmp_path / "tiny.cpp").write_text('extern "C" int seven() { return 7; }')
    monkeypatch.setenv("CORTADO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CORTADO_NATIVE", "1")
    return build.Library("tiny", ("-shared", "-fPIC"), tmp_path)


@pytest.mark.skipif(build.find_compiler() is None, reason="needs a C++ compiler")
def test_what_is_compiled_here_comes_before_the_wheel(tiny: build.Library) -> None:
    tiny.in_wheel().write_bytes(b"of a wheel")
    found = build.find_library(tiny)
    assert found.parent == tiny.folder / "cache" and ctypes.CDLL(str(found)).seven() == 7


def test_the_wheel_comes_next_and_then_a_reason(tiny: build.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tiny.folder))
    assert build.find_library(tiny) == "no C++ compiler was found; install g++"
    tiny.in_wheel().write_bytes(b"of a wheel")
    assert build.find_library(tiny) == tiny.in_wheel()
    monkeypatch.setenv("CXX", broken_compiler(tiny.folder))
    assert build.find_library(tiny) == tiny.in_wheel()
    monkeypatch.setenv("CORTADO_NATIVE", "0")
    assert build.find_library(tiny) == "native kernels are switched off by CORTADO_NATIVE=0"


def test_a_wheel_that_cannot_be_loaded_is_a_reason(tiny: build.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.in_wheel().write_bytes(b"of another machine")
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tiny.folder))
    monkeypatch.setattr(build, "CODERS", tiny)
    with pytest.warns(UserWarning, match="tiny.so cannot be loaded: .*Files are written in plain codecs"):
        library, state = build.load_kernels.__wrapped__()
    assert library is None and state.startswith("no kernel (")
