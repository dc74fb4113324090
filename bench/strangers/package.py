"""Files of installed packages, found without importing any of their code."""

from importlib.util import find_spec
from pathlib import Path


def file(package: str, *names: str) -> Path:
    """Return the path of a file in a package.  Raises FileNotFoundError."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"strangers: there is no package {package}. See bench/strangers/requirements.txt.")
    return Path(found.submodule_search_locations[0]).joinpath(*names)
