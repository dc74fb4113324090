"""Former files: what files of versions 1 to 3 say before their schemas."""

from dataclasses import dataclass

from cortado.errors import BadFile
from cortado.file.edits import DAMAGED, Edits, read_ascending, read_changed_numbers
from cortado.file.placed import Description, Placed
from cortado.file.wire import Cursor
from cortado.parts.blocks.bypass import Bypass

EDITED, ROUNDED = 2, 3
"""Version 1 has neither edits nor roundings, version 2 has edits, version 3 roundings too."""


@dataclass(frozen=True)
class FormerHead:
    """The removed modules as blocks, and the edits."""

    blocks: Placed
    edits: Edits


def read_former(cursor: Cursor, version: int) -> FormerHead:
    """Read edits and removed modules.  Raises BadFile when version 2 has none of them."""
    if version < EDITED:
        return FormerHead(Placed(), Edits())
    start = cursor.at
    removed, loose = read_ascending(cursor, 0), read_ascending(cursor, -1)
    numbers = read_changed_numbers(cursor)
    any_edits = bool(removed or loose or numbers)
    edits = Edits(loose, numbers, cursor.take(2) if any_edits else b"", cursor.at - start)
    if not any_edits and version == EDITED:
        raise BadFile(f"file: it announces edits and has none. {DAMAGED}")
    blocks = Placed(
        tuple((number, 0) for number in removed), (0,) * len(removed), (Description(Bypass, (), {}),) if removed else ()
    )
    return FormerHead(blocks, edits)
