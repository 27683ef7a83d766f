"""The table of ``core/budget.py`` in memory that the processes of a host share.

The warehouse makes it; others open it through ``/proc``, as they do segments. It has no
name either, so nothing is left of it.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING, Final

from ..core.budget import Ledger

if TYPE_CHECKING:
    from ..comms.messages import Place

_BYTES = 64 * 1024  # for four thousand runtimes
_NUMBERS: Final = "q"


class OwnLedger(Ledger):
    """The warehouse's; ``fd`` is where others open it."""

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError(errno.ENOSYS, "this system has no memfd_create")
        self.fd = os.memfd_create("ledger", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, _BYTES)
            memory = mmap.mmap(self.fd, _BYTES)
        except BaseException:
            os.close(self.fd)
            raise
        super().__init__(memoryview(memory).cast(_NUMBERS))

    def close(self) -> None:
        """Those who have it open keep it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def release(self) -> None:
        """Nobody here looks at it any more, although the process goes on."""
        self.close()
        self._cells.release()  # type: ignore[attr-defined]  # a memoryview, made above


class _SharedLedger(Ledger):
    """That of another process; its mapping keeps no descriptor open."""

    def __init__(self, place: Place) -> None:
        from .mapping import Mapping
        from .segments import open_place

        fd = open_place(place, writable=True)
        try:
            self._mapping = Mapping(fd, place.size, writable=True)
        finally:
            os.close(fd)
        super().__init__(self._mapping.memory().cast("B").cast(_NUMBERS))


def open_ledger(place: Place) -> Ledger | None:
    """The ledger of the warehouse; None: it has gone, and the next will tell."""
    try:
        return _SharedLedger(place)
    except OSError:
        return None
