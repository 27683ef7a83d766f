"""Names the coroutine or inline method that holds a worker's loop.

While it does, the worker answers nobody. A thread looks four times a second whether the
loop's timer has passed, which costs calls nothing; where a user's code is on the loop
and no timer is due, it gives the loop something to do. ``Held`` decides, and knows no
clock and no thread.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from ..core.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CodeType, FrameType

logger = logging.getLogger(__name__)

HELD_S = 1.0
LOOK_S = 0.25
_PACKAGE = __name__.partition(".")[0] + "."


class Held:
    """Whether the loop stands still, seen from outside."""

    __slots__ = ("_beats", "_since_s", "_told")

    def __init__(self) -> None:
        self._beats = -1
        self._since_s = 0.0
        self._told: set[int] = set()

    def look(self, due: bool, beats: int, now_s: float) -> bool:
        """Whether it has stood still for ``HELD_S``.

        Args:
            due: its timer is to pass soon; where nothing happens it has none.
            beats: how often the timer has passed.
            now_s: a monotonic time in seconds.
        """
        if not due or beats != self._beats:
            self._beats = beats
            self._since_s = now_s
            return False
        return now_s - self._since_s >= HELD_S

    def first(self, uid: int) -> bool:
        """This call has not been named before."""
        if uid in self._told:
            return False
        if len(self._told) > 1000:
            self._told.clear()
        self._told.add(uid)
        return True


class Watchdog:
    """The thread that looks.

    Args:
        thread: ident of the loop's thread.
        runners: the code of the functions inside which user code runs; their local
            ``task`` says for which call.
        due: whether the loop's timer is to pass soon.
        beats: how often it has passed.
        post: has a function called on the loop.
    """

    def __init__(
        self,
        thread: int,
        runners: Collection[CodeType],
        due: Callable[[], bool],
        beats: Callable[[], int],
        post: Callable[[Callable[[], None]], object],
    ) -> None:
        self._loop_thread = thread
        self._runners = frozenset(runners)
        self._due = due
        self._beats = beats
        self._post = post
        self._asks = False  # the loop, and it has not answered
        self._answers = 0
        self._held = Held()
        threading.Thread(
            target=self._forever, name="mosaic watchdog", daemon=True
        ).start()

    def _forever(self) -> None:
        while True:
            time.sleep(LOOK_S)
            if not self._asks and not self._due() and self._running()[0] is not None:
                # It began after a constructor that took long, say.
                self._asks = True
                self._post(self._answer)
            due = self._asks or self._due()
            beats = self._beats() + self._answers
            if self._held.look(due, beats, time.monotonic()):
                self._name()

    def _answer(self) -> None:
        self._answers += 1  # first: who sees that it was answered sees this too
        self._asks = False

    def _running(self) -> tuple[Task | None, FrameType | None]:
        """The call whose code is on the loop, and the innermost frame of that code."""
        frame = sys._current_frames().get(self._loop_thread)
        inner: FrameType | None = None  # the innermost of the user's call
        while frame is not None and frame.f_code not in self._runners:
            if not frame.f_globals.get("__name__", "").startswith(_PACKAGE):
                inner = frame
            frame = frame.f_back
        task = None if frame is None else frame.f_locals.get("task")
        return (task, inner) if isinstance(task, Task) else (None, None)

    def _name(self) -> None:
        task, inner = self._running()
        if task is None or not self._held.first(task.uid):
            return
        where = ""
        if inner is not None:
            where = f" ({inner.f_code.co_filename}:{inner.f_lineno})"
        logger.warning(
            "%s.%s%s has held the loop of its worker for more than %g s: no coroutine "
            "runs there meanwhile, and nobody is answered; let it await, or make it a "
            "plain method",
            task.tessera.options.name,
            task.method,
            where,
            HELD_S,
        )
