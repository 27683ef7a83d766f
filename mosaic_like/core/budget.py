"""How much memory and disk the values of one host take, and whether more fits.

The *ledger* is a table of integers that all runtimes of a host share. Each has a row of
its own, into which it alone writes; the warehouse has the first and gives out the
others. Who wants more adds it to its row first and looks at the sum then, so that two
who ask at once never get more than there is: at worst neither gets it.

    cells: memory limit, file limit, rows, 0, then for each row: memory, files

How the table is shared stands in ``runtimes/ledger.py``. All numbers are bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

UNLIMITED = 1 << 62
_MEMORY_LIMIT, _FILE_LIMIT, _ROWS, _, _FIRST = range(5)
_MEMORY, _FILES = range(2)


class Cells(Protocol):
    """Integers: a list, or shared memory."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> Iterable[int]: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class Ledger:
    """The table.

    Args:
        cells: of it; zeros where it is new.
    """

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    @property
    def limits(self) -> tuple[int, int]:
        """Of memory and of files."""
        return self._cells[_MEMORY_LIMIT], self._cells[_FILE_LIMIT]

    @limits.setter
    def limits(self, limits: tuple[int, int]) -> None:
        self._cells[_MEMORY_LIMIT], self._cells[_FILE_LIMIT] = limits

    @property
    def memory(self) -> int:
        """In use, by all together."""
        return self._sum(_MEMORY)

    @property
    def files(self) -> int:
        """The same of files."""
        return self._sum(_FILES)

    def _sum(self, column: int) -> int:
        first = _FIRST + column
        return sum(self._cells[first : first + 2 * self._cells[_ROWS] : 2])

    def write(self, row: int, memory: int, files: int) -> None:
        """Only for whom the row is."""
        # Each is one store of eight aligned bytes: others see the old or the new.
        self._cells[_FIRST + 2 * row + _MEMORY] = memory
        self._cells[_FIRST + 2 * row + _FILES] = files

    def use(self, row: int) -> bool:
        """Count a row from now on; False: the table has not so many."""
        if _FIRST + 2 * row + 1 >= len(self._cells):
            return False
        self._cells[_ROWS] = max(self._cells[_ROWS], row + 1)
        return True


class Rows:
    """Whose row is which; at the warehouse.

    A row that was given back is used again as late as can be.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._of: dict[int, int] = {}
        self._free: deque[int] = deque()
        self._next = 1
        ledger.use(0)

    def give(self, incarnation: int) -> int:
        """A row of zeros; 0: there is none left."""
        row = self._of.get(incarnation, 0)
        if not row:
            row = self._next
            if self._ledger.use(row):
                self._next += 1
            elif self._free:
                row = self._free.popleft()
            else:
                return 0
            self._of[incarnation] = row
        self._ledger.write(row, 0, 0)
        return row

    def take_back(self, incarnation: int) -> None:
        """A runtime is gone: what it had is gone too, or counted by the warehouse."""
        row = self._of.pop(incarnation, 0)
        if row:
            self._ledger.write(row, 0, 0)
            self._free.append(row)


class Account:
    """What one runtime has, and its row; from any thread.

    Without a ledger everything fits.
    """

    def __init__(self) -> None:
        self.memory = 0
        self.files = 0
        self._row = 0
        self._open: Callable[[], Ledger | None] | None = None
        self._ledger: Ledger | None = None
        # Protects all of the above; what a collection frees meanwhile is given back.
        self._lock = threading.RLock()

    def attach(self, row: int, open_ledger: Callable[[], Ledger | None]) -> None:
        """Count in this row, in place of another.

        Args:
            row: that the warehouse has given.
            open_ledger: called when it is needed first; None: there is none.
        """
        with self._lock:
            self._row, self._open, self._ledger = row, open_ledger, None

    def detach(self) -> None:
        """Write nothing any more: the row may be another's."""
        with self._lock:
            self._open = self._ledger = None

    @property
    def limits(self) -> tuple[int, int]:
        """Of memory and of files."""
        with self._lock:
            ledger = self._attached()
            return (UNLIMITED, UNLIMITED) if ledger is None else ledger.limits

    @property
    def relaxed(self) -> bool:
        """Less than half of the memory is in use: some may be kept for later."""
        with self._lock:
            ledger = self._attached()
            return ledger is None or 2 * ledger.memory <= ledger.limits[0]

    def take_memory(self, nbytes: int, *, anyhow: bool = False) -> bool:
        """Count more memory, if it fits.

        Args:
            nbytes: more than is counted already.
            anyhow: also if it does not fit.
        """
        with self._lock:
            self.memory += nbytes
            ledger = self._write()
            if ledger is None or anyhow or nbytes <= 0:
                return True
            if ledger.memory <= ledger.limits[0]:
                return True
            self.memory -= nbytes
            self._write()
            return False

    def take_file(self, nbytes: int) -> bool:
        """The same of files."""
        with self._lock:
            self.files += nbytes
            ledger = self._write()
            if ledger is None or ledger.files <= ledger.limits[1]:
                return True
            self.files -= nbytes
            self._write()
            return False

    def give(self, memory: int = 0, files: int = 0) -> None:
        """So much is not needed any more."""
        with self._lock:
            self.memory -= memory
            self.files -= files
            self._write()

    def _attached(self) -> Ledger | None:
        if self._ledger is None and self._open is not None:
            self._ledger, self._open = self._open(), None
        return self._ledger

    def _write(self) -> Ledger | None:
        ledger = self._attached()
        if ledger is not None:
            ledger.write(self._row, self.memory, self.files)
        return ledger
