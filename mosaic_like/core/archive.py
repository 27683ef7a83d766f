"""Calls that have ended, in as little memory as who holds their proxies may ask for.

Whoever holds the proxies of a million calls has each of them kept at its owner, since a
proxy may yet go to somebody who asks there. Nearly always nobody does: the value went
to the caller with Done. So where there are many, those that gave a small plain value
are put aside as what a Task can be made of again. None is put aside as it ends: that
would be work for each call, and most are dropped soon.

What it takes to be free is decided in ``holders``, as for all tasks: here are only
those that nobody but their makers hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..comms.messages import CALL, Done
from ..ids import maker
from .task import DONE, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tessera import Tessera

LEAST = 1 << 17  # tasks of one runtime, of which few are worth the work
TICKS = 16  # in which all of them are looked at: a few milliseconds in each


class _Record(msgspec.Struct, gc=False, eq=False):
    """What is not the same for all of them, nor in the uid."""

    tessera: Tessera
    method: str
    value: bytes


class Archive:
    """Those of one runtime.

    Args:
        tasks: all others, by uid; those that are put aside are taken out of it.

    Attributes:
        least: while there are no more tasks, none is put aside.
    """

    def __init__(self, tasks: dict[int, Task]) -> None:
        self.least = LEAST
        self._tasks = tasks
        self._records: dict[int, _Record] = {}
        self._sweep: list[int] = []  # still to be looked at, the oldest last
        self._portion = 0  # of these, at one tick
        self._stayed = 0  # that were looked at in this sweep, or the one before
        # Many give None in a row, all of them in bytes of their own.
        self._last = b""

    def __contains__(self, uid: int) -> bool:
        return uid in self._records

    def __iter__(self) -> Iterator[int]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    # -- in ----------------------------------------------------------------------------

    def look(self) -> bool:
        """Put some aside, if there are many; whether to look at the next tick."""
        tasks = self._tasks
        sweep = self._sweep
        if not sweep:
            if not self._are_many():
                return False
            sweep.extend(reversed(tasks))
            self._portion = len(sweep) // TICKS + 1
            self._stayed = 0
        for uid in reversed(sweep[-self._portion :]):
            task = tasks.get(uid)
            if task is not None and not self.put_aside(task):
                self._stayed += 1
        del sweep[-self._portion :]
        return bool(sweep) or self._are_many()

    def put_aside(self, task: Task) -> bool:
        """Put one aside, if it is of the plain kind."""
        if not _is_plain(task):
            return False
        value = task.outcome.data
        if value == self._last:
            value = self._last
        self._last = value
        uid = task.uid
        self._records[uid] = _Record(task.tessera, task.method, value)
        del self._tasks[uid]
        return True

    def _are_many(self) -> bool:
        # Those that stayed may stay for long: as many more before all are looked at
        # again, so that no task costs more than two looks.
        return len(self._tasks) > max(self.least, 2 * self._stayed)

    # -- out ---------------------------------------------------------------------------

    def get(self, uid: int) -> Task | None:
        """One as a task, to be read; it stays here."""
        record = self._records.get(uid)
        if record is None:
            return None
        task = Task(uid, maker(uid), record.tessera, record.method, b"")
        task.state = DONE
        task.outcome = Done(uid, record.value)
        return task

    def values(self) -> Iterator[Task]:
        """All of them, one after the other."""
        return filter(None, map(self.get, list(self._records)))

    def take_back(self, uid: int) -> Task | None:
        """One is a task like others again."""
        task = self.get(uid)
        if task is not None:
            del self._records[uid]
            self._tasks[uid] = task
        return task

    def drop(self, uid: int) -> bool:
        """Nobody holds it any more; False: it is not here."""
        return self._records.pop(uid, None) is not None


def _is_plain(task: Task) -> bool:
    """All that anybody may still ask of it is in a record."""
    outcome = task.outcome
    extra = task.extra
    return (
        task.state == DONE
        and not (task.shared or task.released)
        and not task.size  # it went with Done
        and type(outcome) is Done
        and outcome.extra is None
        and (extra is None or (extra.kind == CALL and extra.retried is None))
        and task.method[0] != "_"  # the tessera knows its construction and its end
        and task.caller == maker(task.uid)
    )
