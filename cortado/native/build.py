"""Compile the C++ kernels on first use, cache and load them; or report why not.

The coders are compiled for this processor. The products travel with files, so they are compiled for every processor of
this architecture and choose while they run.
"""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cortado.machine import cache_folder

HERE = Path(__file__).parent
TIME_LIMIT_S = 300
PRODUCTS_SOURCE, PRODUCTS_LIBRARY = "cortado_products.cpp", "libcortado_products.so"
"""The products as one file, and compiled."""


@dataclass(frozen=True)
class Library:
    """A library to compile: what its file in the cache is called, the compiler's flags, and the files it is made from."""

    name: str
    flags: tuple[str, ...]
    folder: Path
    for_this_processor: bool

    def files(self) -> list[Path]:
        """Return the C++ files and their headers, in a fixed order."""
        return [*sorted(self.folder.glob("*.cpp")), *sorted(self.folder.glob("*.hpp"))]

    def machine(self) -> str:
        """Return what the compiled code depends on."""
        return processor() if self.for_this_processor else platform.machine()


LIBRARY_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC")
CODERS = Library("kernels", (*LIBRARY_FLAGS, "-march=native"), HERE, True)
# Without the compiler's own libraries, so that an older system can load it.
ALONE = ("-static-libstdc++", "-static-libgcc", "-s")
PRODUCT_FLAGS = (*LIBRARY_FLAGS, "-ffp-contract=fast", "-fvisibility=hidden", "-w")
PRODUCTS = Library("products", (*PRODUCT_FLAGS, *ALONE), HERE / "products", False)


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


def library_path(compiler: str, library: Library) -> Path:
    """Return the path of a compiled library; its name depends on sources, flags, compiler and machine."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=TIME_LIMIT_S)
    digest = hashlib.sha256()
    for part in (compiler, version.stdout, library.machine(), *library.flags):
        digest.update(part.encode() + b"\0")
    for source in library.files():
        digest.update(source.read_bytes() + b"\0")
    return cache_folder() / f"{library.name}_{digest.hexdigest()[:24]}.so"


def compiled(compiler: str, library: Library) -> Path:
    """Return the path of a library, compiled unless it is in the cache.

    Compile under a temporary name, then rename, so that concurrent processes do not collide.
    Raises OSError or subprocess.SubprocessError when compilation fails.
    """
    path = library_path(compiler, library)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        sources = [str(file) for file in library.files() if file.suffix == ".cpp"]
        command = [compiler, *library.flags, "-o", name, *sources]
        subprocess.run(command, check=True, capture_output=True, timeout=TIME_LIMIT_S)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path


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
            return ctypes.CDLL(str(compiled(compiler, CODERS))), "compiled kernel"
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


def product_library() -> Path | str:
    """Return the path of the compiled products, or the reason why there are none, in words."""
    if os.environ.get("CORTADO_NATIVE") == "0":
        return "native kernels are switched off by CORTADO_NATIVE=0"
    compiler = find_compiler()
    if compiler is None:
        return "no C++ compiler was found; install g++"
    try:
        return compiled(compiler, PRODUCTS)
    except (OSError, subprocess.SubprocessError) as error:
        return f"the C++ compiler {compiler} failed: {error}"


def product_source() -> str:
    """Return the products as one C++ file, which says in its first lines how to build the library from it."""
    return f"// Build it: {build_command()}\n{inlined(PRODUCTS.folder / 'ort_products.cpp', set())}\n"


def build_command() -> str:
    """Return the shell command that builds the products from their one file and notes the library's checksum."""
    flags = " ".join(PRODUCT_FLAGS)
    note = f"sha256sum {PRODUCTS_LIBRARY} > {PRODUCTS_LIBRARY}.sha256"
    return f"g++ {flags} -o {PRODUCTS_LIBRARY} {PRODUCTS_SOURCE} && {note}"


def inlined(file: Path, seen: set[str]) -> str:
    """Return a C++ file with its own headers in their places, each once."""
    lines = []
    for line in file.read_text(encoding="utf8").splitlines():
        found = re.fullmatch(r'#include "(.+)"', line)
        if found is None:
            lines += [] if line == "#pragma once" else [line]
        elif found[1] not in seen:
            seen.add(found[1])
            lines.append(inlined(file.parent / found[1], seen))
    return "\n".join(lines)
