"""Kernels: with which kernel a runtime's file computes the layers, and why not with a faster one."""

from collections.abc import Sequence

from cortado.report.pages import words
from cortado.report.pages.markup import Markup, tag
from cortado.report.pages.tables import head_row, number, table
from cortado.report.record import FLOATS, INT8, UNREPORTED, Exported, Placement
from cortado.table import aligned

HEADS = ("layers", "kernel", "multiply-adds", "why not faster")
NAMED = 5


def kernel_name(kernel: str, bits: int) -> str:
    """Return "packed, 4 bits" for kernels whose name does not say the bits of a weight."""
    return kernel if kernel in (FLOATS, UNREPORTED, INT8) else f"{kernel}, {bits} bit{'s' if bits > 1 else ''}"


def worth_telling(rows: Sequence[Placement]) -> bool:
    """Return whether some layer is not simply in floats."""
    return any(row.kernel not in (FLOATS, UNREPORTED) or row.why for row in rows)


def kernel_sentences(rows: Sequence[Placement]) -> list[str]:
    """Return what share each kernel computes, and the first layers that it could not; nothing where all is in floats."""
    if not worth_telling(rows):
        return []
    kernels = dict.fromkeys((row.kernel, row.bits) for row in rows)
    shares = [
        f"{kernel_name(*kernel)} {words.percent(sum(row.share for row in rows if (row.kernel, row.bits) == kernel), 1)}"
        for kernel in kernels
    ]
    left = [f"{row.layer or '(network)'} in {row.kernel} ({row.why})" for row in rows if row.why]
    return [f"Multiply-adds by kernel: {', '.join(shares)}{first_names('; not faster', left)}"]


def first_names(title: str, names: Sequence[str]) -> str:
    """Return the title and the first five names; "" without names."""
    return f"{title}: {', '.join(names[:NAMED])}{' ...' if len(names) > NAMED else ''}" if names else ""


def kernel_rows(rows: Sequence[Placement]) -> list[tuple[str, str, str, str]]:
    """Return a row for all layers of the same kernel and reason, in the order of the first of each."""
    groups: dict[tuple[str, int, str], list[Placement]] = {}
    for row in rows:
        groups.setdefault((row.kernel, row.bits, row.why), []).append(row)
    return [
        (layers_text(own), kernel_name(kernel, bits), words.percent(sum(row.share for row in own), 1), why)
        for (kernel, bits, why), own in groups.items()
    ]


def layers_text(rows: Sequence[Placement]) -> str:
    """Return "stem", or "units.0 and 17 more"."""
    first = rows[0].layer or "(network)"
    return first if len(rows) == 1 else f"{first} and {len(rows) - 1} more"


def kernel_table_text(row: Exported) -> str:
    """Return the table of one file as aligned lines; "" where all is in floats."""
    return placements_text(row.runtime, row.placements) if worth_telling(row.placements) else ""


def placements_text(runtime: str, rows: Sequence[Placement]) -> str:
    """Return a runtime's table as aligned lines."""
    return aligned([(f"{HEADS[0]} in {runtime}", *HEADS[1:]), *kernel_rows(rows)], "<<><")


def kernel_table(row: Exported) -> Markup | None:
    """Return the table of one file for the page; None where all is in floats."""
    if not worth_telling(row.placements):
        return None
    rows = [
        tag("tr", tag("th", layers, scope="row"), tag("td", kernel), number(share), tag("td", why))
        for layers, kernel, share, why in kernel_rows(row.placements)
    ]
    return table([head_row(*HEADS)], rows, "stages", f"Kernels of the file for {row.runtime}")
