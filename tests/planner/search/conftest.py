"""Studies of Optuna on a disk that is not waited for: a killed process loses nothing by it, only a machine without power."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True, scope="session")
def unsynced_studies() -> Iterator[None]:
    """SQLite waits for the disk at each of the many writes of a trial; here it leaves that to the system."""
    if find_spec("sqlalchemy") is None:
        yield
        return
    from sqlalchemy import Engine, event  # noqa: PLC0415

    def opened(connection, _):
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", opened)
    yield
    event.remove(Engine, "connect", opened)
