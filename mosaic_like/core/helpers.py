"""Which submitters of function tasks get a helper, and when: the state of a node.

A helper is one more worker, for function tasks alone. It is started when the threads of
all workers of a node stand still in their calls (``stillness``) and function tasks lie
behind some of them: what the calls wait for may be among these. Workers that are free
get them without any help (``reclaiming``).

Helpers are few, and calls may stand still in them, too. So a helper is given not to all
but to one submitter at a time: that whose own call has begun last. Of calls inside each
other that is the innermost, so all helpers go down one branch, and as many as it is
deep are enough, however wide the tree is. It is taken from one only for another whose
call has begun later, or when it has found nothing to do and left.

    Start    a helper with this number is to be started
    Help     a submitter may use a helper from now on
    Leave    it may do so no longer

Who got a helper for nothing (tasks may be bound to their worker) gets none again until
something has changed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Start(NamedTuple):
    number: int


class Help(NamedTuple):
    submitter: int  # incarnation
    helper: int  # incarnation


class Leave(NamedTuple):
    submitter: int
    helper: int


class _Thread:
    """What is known of the thread of one worker or helper."""

    __slots__ = ("behind", "since_s")

    def __init__(self) -> None:
        self.since_s: float | None = None  # when its call began that stands still
        self.behind: frozenset[int] = frozenset()  # submitters of what lies behind it


class _Helper:
    __slots__ = ("changes", "incarnation", "submitter")

    def __init__(self, changes: int) -> None:
        self.changes = changes  # that there had been when it was started
        self.incarnation = 0  # it has not joined
        self.submitter = 0  # that it helps


class Helpers:
    """Those of one node.

    Args:
        most: helpers at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: dict[int, _Thread] = {}  # by incarnation
        self._workers: set[int] = set()  # incarnations
        self._helpers: dict[int, _Helper] = {}  # by number
        self._since_s: dict[int, float] = {}  # when anybody has joined
        self._changes = 0
        self._in_vain: set[int] = set()  # submitters, since the last change

    # -- what happens ------------------------------------------------------------------

    def joined(self, incarnation: int, now_s: float) -> None:
        """Somebody has joined who may submit tasks.

        Args:
            incarnation: of a head, or of a worker or helper of any node.
            now_s: a monotonic time, in seconds.
        """
        self._since_s[incarnation] = now_s

    def watch(self, incarnation: int, number: int | None) -> None:
        """It is a worker of this node; with a number, one of its helpers."""
        self._threads[incarnation] = _Thread()
        if number is None:
            self._workers.add(incarnation)
            self._changed()
        elif number in self._helpers:
            self._helpers[number].incarnation = incarnation

    def gone(self, incarnation: int) -> None:
        """It is lost, or about to leave."""
        self._since_s.pop(incarnation, None)
        self._threads.pop(incarnation, None)
        if incarnation in self._workers:
            self._workers.discard(incarnation)
            self._changed()

    def ended(self, number: int, *, died: bool = False) -> None:
        """The process of a helper has ended; ``died``: by what it ran, perhaps."""
        helper = self._helpers.pop(number, None)
        if helper is not None and not died and helper.changes == self._changes:
            # One that has not even joined would have been of no use to anybody.
            in_vain = {helper.submitter} if helper.submitter else self._since_s.keys()
            self._in_vain |= in_vain

    def told(
        self, incarnation: int, since_s: float | None, behind: Sequence[int]
    ) -> bool:
        """What a worker says of its thread; False: it is none of this node.

        Args:
            incarnation: of the worker or helper.
            since_s: when the call began that stands still; None: none does.
            behind: incarnations of the submitters of function tasks that lie behind.
        """
        thread = self._threads.get(incarnation)
        if thread is None:
            return False
        thread.since_s, thread.behind = since_s, frozenset(behind)
        self._changed()
        return True

    def _changed(self) -> None:
        self._changes += 1
        self._in_vain.clear()

    # -- what follows ------------------------------------------------------------------

    def next(self) -> list[Start | Help | Leave]:
        """What is to be done now, in this order."""
        threads = self._threads
        if not self._workers or any(threads[i].since_s is None for i in self._workers):
            return []
        waiting = {submitter for t in threads.values() for submitter in t.behind}
        waiting = (waiting & self._since_s.keys()) - self._in_vain
        # Who runs can run its own, and stands still soon if it cannot.
        waiting -= {i for i, thread in threads.items() if thread.since_s is None}
        if not waiting:
            return []
        submitter = max(waiting, key=self._rank)
        for helper in self._helpers.values():
            thread = threads.get(helper.incarnation)
            if thread is None and helper.incarnation == 0:
                return []  # it will join soon, or end
            if thread is not None and thread.since_s is None:
                return self._give(helper, submitter)
        free = set(range(self._most)) - self._helpers.keys()
        if not free:
            return []
        number = min(free)
        self._helpers[number] = _Helper(self._changes)
        return [Start(number)]

    def _give(self, helper: _Helper, submitter: int) -> list[Start | Help | Leave]:
        """A helper that does not stand still, unless it has something to do already."""
        before = helper.submitter
        if before and self._rank(before) >= self._rank(submitter):
            return []
        helper.submitter = submitter
        help_: list[Start | Help | Leave] = [Help(submitter, helper.incarnation)]
        return [Leave(before, helper.incarnation), *help_] if before else help_

    def _rank(self, incarnation: int) -> float:
        """When its call began, of a worker whose call stands still; else it itself."""
        thread = self._threads.get(incarnation)
        if thread is not None and thread.since_s is not None:
            return thread.since_s
        return self._since_s.get(incarnation, -math.inf)

    @property
    def are_exhausted(self) -> bool:
        """All there may be are here, calls stand still in them too, and tasks wait."""
        threads = self._threads.values()
        return (
            len(threads) == len(self._workers) + self._most
            and all(thread.since_s is not None for thread in threads)
            and any(thread.behind for thread in threads)
        )
