"""Data folders for the tests of built-in tasks."""

from pathlib import Path

import pytest


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of data sets and an empty cache, in place of the user's."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CORTADO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CORTADO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"
