"""A wheel, built as a user builds it: what it holds, and that its kernels run where there is no compiler."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cortado.file import mix, rans
from cortado.native import build, python_mix, python_rans
from tests.fresh import ROOT, fresh

NEEDED = ("cortado", "recipes", "examples", "pyproject.toml", "setup.py", "README.md", "LICENSE")
KERNELS = {"cortado/native/kernels.so", "cortado/native/products/products.so"}
INSTALLED = """
import ctypes, json, os, sys
from hashlib import sha256
folder, cache = sys.argv[1:]
os.environ.update(PATH=cache, CXX="", CORTADO_CACHE=cache, CORTADO_NATIVE="1")
sys.path.insert(0, folder)
import numpy as np
from cortado.file import mix, rans
from cortado.native import build, coders
values = np.rint(np.random.default_rng(0).laplace(scale=3, size=(12, 40))).astype(np.int32)
body = mix.encode(values, None, quick=True)
assert (mix.decode(body, values.shape, None) == values).all()
products = build.product_library()
assert ctypes.CDLL(str(products)).cortado_sparse_product
print(json.dumps([build.native_state(), str(products), body.hex(), rans.encode(values.ravel(), 40).hex()]))
"""


def built(folder: Path, **changes: str) -> tuple[Path, str]:
    """Build a wheel from a copy of the sources; return its path and what the command printed."""
    source = folder / "source"
    source.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(source),
        "--no-build-isolation",
        "--no-deps",
        "-v",
        "-w",
        str(folder),
    ]
    environment = os.environ | {"PYTHONPATH": "", "PIP_CACHE_DIR": str(folder / "cache")} | changes
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert done.returncode == 0, done.stdout
    (wheel,) = folder.glob("*.whl")
    return wheel, done.stdout


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if build.find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("wheel")
    # Not optimised: that takes most of the time, and changes no result.
    return built(folder, CXX=script(folder / "quick", f'exec {build.find_compiler()} "$@" -O0'))[0]


def test_the_wheel_holds_all_that_runs_and_the_kernels(wheel: Path) -> None:
    names, sources = names_in(wheel), ("*.py", "*.cpp", "*.hpp", "*.css", "py.typed")
    assert {str(file.relative_to(ROOT)) for kind in sources for file in (ROOT / "cortado").rglob(kind)} <= names
    assert {name for name in names if name.endswith(".so")} == KERNELS
    shared = {name.partition("/data/share/cortado/")[2] for name in names if ".data/" in name}
    assert shared == {
        str(file.relative_to(ROOT)) for folder in ("recipes", "examples") for file in (ROOT / folder).glob("*.yaml")
    }


def test_the_wheel_serves_one_platform_and_every_python(wheel: Path) -> None:
    tag = wheel.stem.split("-", 2)[2]
    assert tag.startswith("py3-none-") and not tag.endswith("any")
    body = (
        zipfile.ZipFile(wheel)
        .read(next(name for name in names_in(wheel) if name.endswith(".dist-info/WHEEL")))
        .decode()
    )
    assert "Root-Is-Purelib: false" in body and f"Tag: {tag}" in body


def test_its_kernels_code_the_same_bytes_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    done = fresh(INSTALLED, str(tmp_path / "installed"), str(tmp_path / "nothing"))
    assert done.returncode == 0, done.stderr
    state, products, mixed, fast = json.loads(done.stdout)
    assert state == "kernel of the wheel" and products == str(
        tmp_path / "installed/cortado/native/products/products.so"
    )
    assert (mixed, fast) == by_the_python_port()


def by_the_python_port() -> tuple[str, str]:
    """Return the streams that INSTALLED prints, from the Python ports in this process."""
    values = np.rint(np.random.default_rng(0).laplace(scale=3, size=(12, 40))).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mix, "mix_encode", python_mix.encode)
        for name in ("survey", "tokens", "encode"):
            patch.setattr(rans, f"rans_{name}", getattr(python_rans, name))
        return mix.encode(values, None, quick=True).hex(), rans.encode(values.ravel(), 40).hex()


def test_without_a_compiler_the_wheel_is_pure_and_says_so(tmp_path: Path) -> None:
    wheel, printed = built(tmp_path, PATH=str(tmp_path), CXX="")
    assert wheel.name.endswith("-py3-none-any.whl") and not {name for name in names_in(wheel) if name.endswith(".so")}
    assert "no C++ compiler was found: this wheel is pure and has no kernels" in printed


def test_a_compiler_that_fails_leaves_a_pure_wheel(tmp_path: Path) -> None:
    wheel, printed = built(tmp_path, CXX=script(tmp_path / "broken", "exit 1"))
    assert wheel.name.endswith("-py3-none-any.whl") and not {name for name in names_in(wheel) if name.endswith(".so")}
    assert "failed" in printed and "this wheel is pure and has no kernels" in printed
