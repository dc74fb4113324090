"""Find the files of a data set: in the user's folder or the cache, or download them."""

import hashlib
import http.client
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cortado.errors import BadTask
from cortado.machine import cache_folder
from cortado.quantities import size_text

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Remote:
    """A file to download: `urls` are tried in order, and `sha256` verifies the content."""

    name: str
    urls: tuple[str, ...]
    sha256: str
    size_bytes: int


def folders(set_name: str) -> list[Path]:
    """Return the folders to search, in order: $CORTADO_DATA/<set>, <cache>/data/<set>.

    Raises BadTask if CORTADO_DATA is not a folder.
    """
    found = []
    if os.environ.get("CORTADO_DATA"):
        root = Path(os.environ["CORTADO_DATA"])
        if not root.is_dir():
            raise BadTask(f"task: CORTADO_DATA must name a folder of data sets, got {root}. Correct it or unset it.")
        found.append(root / set_name)
    found.append(cache_folder() / "data" / set_name)
    return found


def find(set_name: str, file_names: tuple[str, ...]) -> Path | None:
    """Return the first of `file_names` that exists, folder by folder, or None."""
    for folder in folders(set_name):
        for file_name in file_names:
            if (folder / file_name).is_file():
                return folder / file_name
    return None


def download(set_name: str, remote: Remote) -> Path:
    """Download a file into the cache and return its path.

    It is written under a temporary name, checked against its SHA-256 and then renamed, so files in the cache are
    complete. Raises BadTask if no URL works: which file, where it was searched for, and how to provide it.
    """
    folder = cache_folder() / "data" / set_name
    failures = []
    for url in remote.urls:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _fetch(url, folder, remote)
        except (OSError, http.client.HTTPException, BadTask) as error:
            failures.append(f"{url} ({error})")
    looked = " and ".join(str(place) for place in folders(set_name))
    raise BadTask(
        f"task: {set_name} needs the file {remote.name}. Looked in {looked}; could not download it from "
        f"{'; '.join(failures)}. Go online, or put the file into a folder {set_name}/ "
        "and set CORTADO_DATA to its parent folder."
    )


def _fetch(url: str, folder: Path, remote: Remote) -> Path:
    """Try one URL once; leave nothing behind on failure."""
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{remote.name}.")
    try:
        with os.fdopen(handle, "wb") as target, urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as source:
            _copy_checked(source, target, remote)
        os.chmod(temporary, 0o644)
        os.replace(temporary, folder / remote.name)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return folder / remote.name


def _copy_checked(source: IO[bytes], target: IO[bytes], remote: Remote) -> None:
    """Copy `source` to `target`, at most the file's size.  Raises BadTask if it is another file."""
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        size_bytes += len(chunk)
        if size_bytes > remote.size_bytes:
            raise BadTask(f"more than the {size_text(remote.size_bytes)} expected")
        digest.update(chunk)
        target.write(chunk)
    if size_bytes != remote.size_bytes:
        raise BadTask(f"truncated: {size_bytes} of {remote.size_bytes} bytes")
    if digest.hexdigest() != remote.sha256:
        raise BadTask(f"wrong SHA-256: expected {remote.sha256}, got {digest.hexdigest()}")
