"""Finding and fetching files, from file:// homes instead of the network."""

import hashlib
from pathlib import Path

import pytest

from cortado.errors import BadTask
from cortado.tasks.store import Remote, cache_folder, download, find, folders

BODY = b"what the file holds" * 1000


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, a cache and a public home, all fresh."""
    (tmp_path / "data").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "set.bin").write_bytes(BODY)
    monkeypatch.setenv("CORTADO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CORTADO_CACHE", str(tmp_path / "cache"))
    return tmp_path


def remote(*homes: Path, sha256: str = hashlib.sha256(BODY).hexdigest(), size_bytes: int = len(BODY)) -> Remote:
    return Remote("set.bin", tuple((home / "set.bin").as_uri() for home in homes), sha256, size_bytes)


def files_under(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def test_cache_folder_follows_the_environment(places, monkeypatch):
    assert cache_folder() == places / "cache"
    monkeypatch.delenv("CORTADO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(places / "xdg"))
    assert cache_folder() == places / "xdg" / "cortado"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(places))
    assert cache_folder() == places / ".cache" / "cortado"


def test_folders_put_the_users_first(places, monkeypatch):
    assert folders("mnist") == [places / "data" / "mnist", places / "cache" / "data" / "mnist"]
    monkeypatch.delenv("CORTADO_DATA")
    assert folders("mnist") == [places / "cache" / "data" / "mnist"]


def test_folders_refuse_a_data_folder_that_is_none(places, monkeypatch):
    monkeypatch.setenv("CORTADO_DATA", str(places / "nowhere"))
    with pytest.raises(BadTask, match="CORTADO_DATA must name a folder.*nowhere"):
        folders("mnist")


def test_find_takes_folders_before_names(places):
    assert find("set", ("a", "b")) is None
    for folder, name in (("cache/data/set", "a"), ("data/set", "b")):
        (places / folder).mkdir(parents=True)
        (places / folder / name).touch()
    assert find("set", ("a", "b")) == places / "data" / "set" / "b"
    (places / "data" / "set" / "a").touch()
    assert find("set", ("a", "b")) == places / "data" / "set" / "a"


def test_download_fetches_into_the_cache(places):
    path = download("set", remote(places / "home"))
    assert path == places / "cache" / "data" / "set" / "set.bin"
    assert path.read_bytes() == BODY
    assert files_under(places / "cache") == ["data/set/set.bin"]
    assert find("set", ("set.bin",)) == path


def test_download_tries_the_next_home(places):
    assert download("set", remote(places / "nowhere", places / "home")).read_bytes() == BODY


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"sha256": "0" * 64}, "wrong SHA-256: expected 0000"),
        ({"size_bytes": len(BODY) + 1}, "truncated: 19000 of 19001 bytes"),
        ({"size_bytes": len(BODY) - 1}, "more than the 19 KB expected"),
    ],
)
def test_download_refuses_another_file_and_keeps_nothing(places, wrong, says):
    with pytest.raises(BadTask, match=says):
        download("set", remote(places / "home", **wrong))
    assert files_under(places / "cache") == []


def test_download_says_what_to_do_when_offline(places):
    with pytest.raises(BadTask) as caught:
        download("set", remote(places / "nowhere"))
    message = str(caught.value)
    for part in ("set.bin", str(places / "data" / "set"), str(places / "cache"), "file://", "set CORTADO_DATA"):
        assert part in message
    assert files_under(places / "cache") == []


def test_download_says_so_when_the_cache_cannot_be_made(places, monkeypatch):
    (places / "file").touch()
    monkeypatch.setenv("CORTADO_CACHE", str(places / "file"))
    with pytest.raises(BadTask, match="could not download"):
        download("set", remote(places / "home"))


def test_download_keeps_nothing_when_interrupted(places, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cortado.tasks.store._copy_checked", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download("set", remote(places / "home"))
    assert files_under(places / "cache") == []
