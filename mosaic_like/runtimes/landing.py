"""Memory in which buffers that come in chunks are put together, used again and again.

Pages that were never touched cost several times as much as the copying, so a block goes
back to the pool when the last view on it has gone. It is imported with the first
transfer.
"""

from __future__ import annotations

import ctypes
import mmap
import types
from typing import Any

from ..comms.gathering import Mapped

BLOCK_BYTES = 64 << 10  # the smallest
FREE_BYTES = 1 << 30  # kept at most


class _Lent(Mapped):
    """A block that is in use: views on it keep it, and nobody else writes there.

    The classes that are made have memory: they are arrays of ctypes, too.
    """

    loan: _Loan


class _Loan:
    """Brings a block back, on any thread."""

    __slots__ = ("_block", "_pool")

    def __init__(self, pool: Pool, block: mmap.mmap) -> None:
        self._pool = pool
        self._block = block

    def __del__(self) -> None:
        self._pool.give_back(self._block)


class Pool:
    """The blocks of one runtime; they are taken on its loop's thread.

    Args:
        free_bytes: kept at most.
    """

    def __init__(self, free_bytes: int = FREE_BYTES) -> None:
        self._free_bytes = free_bytes
        self._free: dict[int, list[mmap.mmap]] = {}  # by size
        self._idle: list[mmap.mmap] = []  # those that were free when last trimmed
        self._types: dict[int, Any] = {}  # by size: powers of two, so they are few

    def take(self, nbytes: int) -> memoryview:
        """Memory to write to.

        Raises:
            OSError: there is none.
        """
        if not nbytes:
            return memoryview(b"")
        size = max(BLOCK_BYTES, 1 << (nbytes - 1).bit_length())
        free = self._free.get(size)
        try:
            block = free.pop() if free else _new(size)
            lent = self._type(size).from_buffer(block)
        except (OverflowError, ValueError, MemoryError) as error:
            raise OSError(f"there is no memory for {nbytes} bytes: {error}") from None
        lent.loan = _Loan(self, block)
        return memoryview(lent).cast("B")[:nbytes]

    def _type(self, size: int) -> Any:
        kind = self._types.get(size)
        if kind is None:
            memory: Any = ctypes.c_ubyte * size
            kind = types.new_class("Lent", (_Lent, memory))
            self._types[size] = kind
        return kind

    def give_back(self, block: mmap.mmap) -> None:
        """The last view on it has gone."""
        size = len(block)
        if self.free_bytes + size <= self._free_bytes:
            self._free.setdefault(size, []).append(block)

    @property
    def free_bytes(self) -> int:
        """That are kept and not in use."""
        return sum(size * len(blocks) for size, blocks in list(self._free.items()))

    def trim(self) -> bool:
        """Let go of what was free at the last call too; whether something is kept."""
        idle, self._idle = self._idle, []
        for blocks in list(self._free.values()):
            for block in list(blocks):
                if any(block is other for other in idle):
                    blocks.remove(block)
                else:
                    self._idle.append(block)
        return bool(self._idle)


def _new(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
