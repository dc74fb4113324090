"""Stage files: the finished stages of a run in its folder, each an encoded network and a note."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortado.engine.fingerprints import file_sum
from cortado.errors import BadFile
from cortado.file.whole import make_folder, read_bytes, write_whole


@dataclass(frozen=True)
class StageFiles:
    """The files of one stage; `number` begins at 0."""

    folder: Path
    number: int

    @property
    def stem(self) -> Path:
        """Return their path without the suffix."""
        return self.folder / "stages" / f"{self.number + 1:02}"

    @property
    def network(self) -> Path:
        return self.stem.with_suffix(".cortado")

    @property
    def note(self) -> Path:
        return self.stem.with_suffix(".json")

    def write(self, body: bytes, note: dict[str, Any]) -> None:
        """Write the encoded network, then the note, which makes the stage count as finished."""
        make_folder(self.stem.parent)
        write_whole(self.network, body)
        write_whole(self.note, json.dumps({**note, "file": file_sum(body)}, indent=1).encode())

    def read_note(self) -> dict[str, Any] | None:
        """Return the note; None if the stage was not finished.  Raises BadFile for a damaged one."""
        if not self.note.exists():
            return None
        try:
            found = json.loads(self.note.read_text(encoding="utf8"))
        except ValueError as error:
            raise self.damaged(error) from error
        if not isinstance(found, dict):
            raise self.damaged("it is no mapping")
        return found

    def damaged(self, why: object) -> BadFile:
        """Return the error for a note that cannot be used."""
        return BadFile(f"compress: {self.note} is damaged ({why}). Delete the folder's stages and start again.")

    def read_network(self, note: dict[str, Any]) -> bytes:
        """Return the encoded network.  Raises BadFile if it is not the one of the note."""
        body = read_bytes(self.network)
        if note.get("file", file_sum(body)) != file_sum(body):
            raise BadFile(f"compress: {self.network} was altered. Delete the folder's stages and start again.")
        return body
