"""A runtime that other threads give work to: its states live on its loop's thread.

What is to be done there is not for here.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from .base import Base

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..config import Config

logger = logging.getLogger(__name__)

_AT_ONCE_S = 60.0  # that a thread waits for the loop's, which is not held for so long


class Posting(Base):
    """See the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        super().__init__(loop, config)
        self._inbox: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._awake = False  # the loop's thread will look
        self._ident = threading.get_ident()

    @property
    def on_loop(self) -> bool:
        """This thread is the loop's."""
        return threading.get_ident() == self._ident

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have it called soon on the loop's thread, in order; from any thread."""
        self._inbox.append((function, args))
        if not self._awake:
            self._awake = True
            self.loop.call_soon_threadsafe(self._drain, context=self.context)

    def _drain(self) -> None:
        """The loop's thread looks: it does what was posted, and what else there is."""
        raise NotImplementedError

    def _drain_inbox(self) -> None:
        inbox = self._inbox
        while inbox:
            function, args = inbox.popleft()
            try:
                function(*args)
            except Exception:
                logger.exception("%s: %r", self.uid, function)

    def at_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call it on the loop's thread, and have what it gives; from any thread."""
        if self.on_loop:
            self.catch_up()
            return contextvars.Context().run(function, *args)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:  # of who asked
                future.set_exception(error)

        self.post(run)
        return future.result(_AT_ONCE_S)

    def catch_up(self) -> None:
        """Do now what other threads have posted; on the loop's, inside user code."""
        if self._inbox:
            contextvars.Context().run(self._drain)  # not in the user's

    def take_in(self) -> None:
        """Do now all that other threads have to say; in no user code."""
        self._drain()

    def _wake_tick(self) -> None:
        """Something was dropped, on any thread, perhaps inside a garbage collection."""
        if not self.peers.ticking and not self.peers.closed:
            if self.on_loop:
                self.peers.tick_soon()
            else:
                self.post(self.peers.tick_soon)
