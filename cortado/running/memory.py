"""Memory: give what was freed back to the system."""

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def trimming() -> Callable[[int], int] | None:
    """Return the C library's function for it; None where there is none (only glibc has it)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
        trim.argtypes = [ctypes.c_size_t]
        return trim  # type: ignore[no-any-return]
    except (AttributeError, OSError, TypeError):
        return None


def give_back_freed() -> None:
    """Give freed memory back to the system: glibc keeps it between what is still in use, often more than that."""
    trim = trimming()
    if trim is not None:
        trim(0)
