"""Table: rows of text in aligned columns, for a terminal, a log or a file."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], sides: str = "<>", rules: Sequence[int] = (1,)) -> str:
    """Return `rows`, header first, in columns two spaces apart and as wide as their widest cell.

    In `sides`, "<" aligns a column left and ">" right; the last sign applies to all further columns. A line is drawn
    above each row in `rules`: 1 is below the header, -1 above the last row.
    """
    cells = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    signs = sides.ljust(len(widths), sides[-1])[: len(widths)]
    lines = [
        "  ".join(f"{one:{sign}{width}}" for one, sign, width in zip(row, signs, widths, strict=True)).rstrip()
        for row in cells
    ]
    for place in rules:
        lines.insert(place, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
