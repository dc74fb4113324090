"""The long run by hand is collected when it is asked for."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out all pairs of methods without --all-pairs."""
    return True if collection_path.name == "test_two_methods.py" and not config.getoption("--all-pairs") else None
