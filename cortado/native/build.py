"""Find the C++ kernels: compiled on this machine on first use and cached, else the wheel's; or say why there are none.

All are compiled for every processor of this architecture. The products choose their instructions while they run; the
coders need no choice.
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
WITHOUT = (
    "Files are written in plain codecs and are larger, and files in the codec mix take long to read. "
    "Or install a wheel of cortado-nn that was built with a compiler."
)
PRODUCTS_SOURCE, PRODUCTS_LIBRARY = "cortado_products.cpp", "libcortado_products.so"
"""The products as one file, and compiled."""


@dataclass(frozen=True)
class Library:
    """A library to compile: what its file is called, the compiler's flags, and the folder of its sources."""

    name: str
    flags: tuple[str, ...]
    folder: Path

    def files(self) -> list[Path]:
        """Return the C++ files and their headers, in a fixed order."""
        return [*sorted(self.folder.glob("*.cpp")), *sorted(self.folder.glob("*.hpp"))]

    def in_wheel(self) -> Path:
        """Return where a wheel that was built with a compiler has this library: beside the sources."""
        return self.folder / f"{self.name}.so"


# The compiler's own libraries stay outside: what is copied in from a new system asks for that system's libc.
LIBRARY_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-s")
CODERS = Library("kernels", LIBRARY_FLAGS, HERE)
PRODUCTS = Library("products", (*LIBRARY_FLAGS, "-ffp-contract=fast", "-fvisibility=hidden", "-w"), HERE / "products")


def find_compiler() -> str | None:
    """Return the path of a C++ compiler, or None."""
    for name in (os.environ.get("CXX", ""), "g++", "c++", "clang++"):
        path = shutil.which(name) if name else None
        if path is not None:
            return path
    return None


def library_path(compiler: str, library: Library) -> Path:
    """Return the path of a compiled library; its name depends on sources, flags, compiler and architecture."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=TIME_LIMIT_S)
    digest = hashlib.sha256()
    for part in (compiler, version.stdout, platform.machine(), *library.flags):
        digest.update(part.encode() + b"\0")
    for source in library.files():
        digest.update(source.read_bytes() + b"\0")
    return cache_folder() / f"{library.name}_{digest.hexdigest()[:24]}.so"


def compiled(compiler: str, library: Library) -> Path:
    """Return the path of a library, compiled unless it is in the cache.

    Raises OSError or subprocess.SubprocessError when compilation fails.
    """
    path = library_path(compiler, library)
    if not path.exists():
        compile_to(path, compiler, library)
    return path


def compile_to(path: Path, compiler: str, library: Library) -> None:
    """Compile a library under a temporary name, then rename, so that concurrent processes do not collide.

    Raises OSError or subprocess.SubprocessError when compilation fails.
    """
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


def find_library(library: Library) -> Path | str:
    """Return the path of a library, compiled here or else the wheel's; or the reason why there is none, in words."""
    if os.environ.get("CORTADO_NATIVE") == "0":
        return "native kernels are switched off by CORTADO_NATIVE=0"
    compiler, reason = find_compiler(), "no C++ compiler was found; install g++"
    if compiler is not None:
        try:
            return compiled(compiler, library)
        except (OSError, subprocess.SubprocessError) as error:
            reason = f"the C++ compiler {compiler} failed: {error}"
    return library.in_wheel() if library.in_wheel().exists() else reason


@lru_cache(maxsize=1)
def load_kernels() -> tuple[ctypes.CDLL | None, str]:
    """Return the coders' kernels (None: there are none) and a description of which are used."""
    found = find_library(CODERS)
    if isinstance(found, Path):
        try:
            origin = "kernel of the wheel" if found == CODERS.in_wheel() else "compiled kernel"
            return ctypes.CDLL(str(found)), origin
        except OSError as error:
            found = f"{found} cannot be loaded: {error}"
    if os.environ.get("CORTADO_NATIVE") != "0":
        warnings.warn(f"native: no kernel ({found}). {WITHOUT}", stacklevel=2)
    return None, f"no kernel ({found})"


def native_state() -> str:
    """Return what runs our coders: "compiled kernel", "kernel of the wheel", or "no kernel" with the reason in brackets."""
    return load_kernels()[1]


def missing_kernels() -> str | None:
    """Return what is missing on a machine without the coders' kernels, and what it costs; None where they run."""
    library, state = load_kernels()
    return None if library is not None else f"native: {state}. {WITHOUT}"


def product_library() -> Path | str:
    """Return the path of the compiled products, or the reason why there are none, in words."""
    return find_library(PRODUCTS)


def product_source() -> str:
    """Return the products as one C++ file, which says in its first lines how to build the library from it."""
    return f"// Build it: {build_command()}\n{inlined(PRODUCTS.folder / 'ort_products.cpp', set())}\n"


def build_command() -> str:
    """Return the shell command that builds the products from their one file and notes the library's checksum."""
    flags = " ".join(PRODUCTS.flags)
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
