"""Table: rows of text as aligned columns, for a terminal, a log or a file."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], sides: str = "<>", rules: Sequence[int] = (1,)) -> str:
    """Return `rows`, the heads first, as columns two blanks apart and as wide as their widest cell.

    A column whose sign in `sides` is "<" begins at the left, one with ">" ends at the right; the last sign holds for all
    columns that follow. `rules` are the rows over which a line is drawn: 1 is below the heads, -1 above the last row.
    """
    cells = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    signs = sides.ljust(len(widths), sides[-1])
    lines = [
        "  ".join(f"{one:{sign}{width}}" for one, sign, width in zip(row, signs, widths, strict=False)).rstrip()
        for row in cells
    ]
    for place in rules:
        lines.insert(place, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
