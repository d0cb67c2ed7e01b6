"""Memory that is taken for nothing, so that a test machine is as full as a small device."""

import mmap

from schemas.limits import MIB

#: No two pages alike, so that the kernel can neither merge nor share them.
_MARK_BYTES = 8


class Ballast:
    """Anonymous memory of which every page was written; it stays until ``close``.

    A kernel that is short of memory may still swap it out: it is not locked.
    """

    def __init__(self, megabytes: int) -> None:
        """Take the memory.

        Args:
            megabytes: MiB; 0 takes nothing.

        Raises:
            OSError: There is not so much.
        """
        self.size_bytes = megabytes * MIB
        self._pages = mmap.mmap(-1, self.size_bytes) if megabytes else None
        for place in range(0, self.size_bytes if self._pages is not None else 0, mmap.PAGESIZE):
            self._write(place)

    def close(self) -> None:
        """Give the memory back."""
        if self._pages is not None:
            self._pages.close()

    def _write(self, place: int) -> None:
        assert self._pages is not None  # noqa: S101
        self._pages[place : place + _MARK_BYTES] = (place + 1).to_bytes(_MARK_BYTES, "big")
