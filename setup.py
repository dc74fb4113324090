"""Setup: compiles the kernels into the wheel.  Everything else about the distribution is in pyproject.toml."""

import subprocess
import sys
from logging import WARNING
from pathlib import Path
from types import ModuleType

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# The face of the package imports torch, which building does not need.
face = ModuleType("cortado")
face.__path__ = [str(ROOT / "cortado")]
sys.modules["cortado"] = face

from cortado.native.build import CODERS, PRODUCTS, compile_to, find_compiler  # noqa: E402

LIBRARIES = (CODERS, PRODUCTS)


class BuildWithKernels(build_py):
    """Puts the compiled libraries beside their sources; all of them or, without a compiler that works, none."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in self.libraries():
            path.unlink(missing_ok=True)
        compiler = find_compiler()
        if compiler is None:
            self.announce("no C++ compiler was found: this wheel is pure and has no kernels", WARNING)
            return
        try:
            for library, path in zip(LIBRARIES, self.libraries(), strict=True):
                compile_to(path, compiler, library)
                path.chmod(0o644)
        except (OSError, subprocess.SubprocessError) as error:
            for path in self.libraries():
                path.unlink(missing_ok=True)
            self.announce(f"{compiler} failed ({error}): this wheel is pure and has no kernels", WARNING)

    def libraries(self) -> list[Path]:
        """Return where the libraries are built."""
        return [Path(self.build_lib) / library.in_wheel().relative_to(ROOT) for library in LIBRARIES]


class WheelOfThePlatform(bdist_wheel):
    """Tags the wheel with the platform where it has compiled libraries: they serve every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        build = self.get_finalized_command("build_py")
        self.root_is_pure = not all(path.exists() for path in build.libraries())
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": BuildWithKernels, "bdist_wheel": WheelOfThePlatform})
