"""Compile the C++ kernels on first use, cache and load them; or report why not."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

from cortado.machine import cache_folder

FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
TIME_LIMIT_S = 300


def find_compiler() -> str | None:
    """Return the path of a C++ compiler, or None."""
    for name in (os.environ.get("CXX", ""), "g++", "c++", "clang++"):
        path = shutil.which(name) if name else None
        if path is not None:
            return path
    return None


def processor() -> str:
    """Return the processor's model and features, on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return " ".join(sorted(set(kept)))


def cpp_files() -> list[Path]:
    """Return our C++ files, in a fixed order."""
    return sorted(Path(__file__).parent.glob("*.cpp"))


def library_path(compiler: str) -> Path:
    """Return the path of the compiled kernels; its name depends on sources, flags, compiler and processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=TIME_LIMIT_S)
    digest = hashlib.sha256()
    for part in (compiler, version.stdout, processor(), *FLAGS):
        digest.update(part.encode() + b"\0")
    for source in (*cpp_files(), *sorted(Path(__file__).parent.glob("*.hpp"))):
        digest.update(source.read_bytes() + b"\0")
    return cache_folder() / f"kernels_{digest.hexdigest()[:24]}.so"


def compile_library(compiler: str, target: Path) -> None:
    """Compile under a temporary name, then rename, so that concurrent processes do not collide.

    Raises OSError or subprocess.SubprocessError when compilation fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        command = [compiler, *FLAGS, "-o", name, *(str(source) for source in cpp_files())]
        subprocess.run(command, check=True, capture_output=True, timeout=TIME_LIMIT_S)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


@lru_cache(maxsize=1)
def load_kernels() -> tuple[ctypes.CDLL | None, str]:
    """Return the compiled kernels (None: use the Python port) and a description of which one is used."""
    if os.environ.get("CORTADO_NATIVE") == "0":
        return None, "Python port (CORTADO_NATIVE=0)"
    compiler = find_compiler()
    if compiler is None:
        state = "Python port (no C++ compiler found)"
    else:
        try:
            target = library_path(compiler)
            if not target.exists():
                compile_library(compiler, target)
            return ctypes.CDLL(str(target)), "compiled kernel"
        except (OSError, subprocess.SubprocessError) as error:
            state = f"Python port (the C++ compiler {compiler} failed: {error})"
    warnings.warn(
        f"native: coding runs in the {state}: the same bytes, several hundred times slower. Install g++ to speed it up.",
        stacklevel=2,
    )
    return None, state


def native_state() -> str:
    """Return what runs our kernels: "compiled kernel", or "Python port" with the reason in brackets."""
    return load_kernels()[1]
