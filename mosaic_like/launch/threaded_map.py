"""The thread that calls ``Executor.map``, beside the loop's: both need the interpreter.

    Pace       it submits: the loop's thread is let go between, so that workers begin
    InOrder    it waits for one call after the other, and is woken for few of them

In a thread that runs a call it waits as ``TaskProxy.get`` does, which knows what may
run meanwhile; where another loop than the runtime's runs, as the result of a future.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.task import DONE, PREPARE
from ..runtimes.loops import on_a_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..core.call import Call
    from ..proxies.task import TaskProxy

WATCHED = 64  # calls that the loop is told of at once
# A thread keeps the interpreter for 5 ms where another one wants it, in which tasks of
# a millisecond are over.
YIELD_S = 0.001
YIELD_AT_MOST_S = 0.005  # as long as it would keep the interpreter
LOOK_EVERY = 16  # calls


class Pace:
    """Of a thread that submits many calls.

    Args:
        runtime: that they are submitted to.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._is_apart = runtime.blocking.is_apart()
        # When each worker has what it may have, it can begin.
        self._look_at = 2 * runtime.num_workers
        self._yielded_s = 0.0

    def submitted(self, count: int) -> None:
        """So many have been submitted: let the loop's thread send them, if it is time.

        Args:
            count: in all.
        """
        if count < self._look_at or not self._is_apart:
            return
        self._look_at = count + LOOK_EVERY
        if time.monotonic() - self._yielded_s >= YIELD_S:
            taken = threading.Event()
            self._runtime.post(taken.set)
            taken.wait(YIELD_AT_MOST_S)
            self._yielded_s = time.monotonic()


class InOrder:
    """Calls of one runtime, for the thread that asks for their values.

    Args:
        runtime: whose calls they are.
        proxies: of them, the last one first; taken out as their values are given.
        timeout: seconds from ``begun_s`` on, for all; None waits for ever.
        begun_s: by ``time.monotonic``.
        kept: what is to be there until all have ended.
    """

    def __init__(
        self,
        runtime: Any,
        proxies: list[TaskProxy[Any]],
        timeout: float | None,
        begun_s: float,
        kept: Any,
    ) -> None:
        self._runtime = runtime
        self._proxies = proxies
        self._timeout = timeout
        self._begun_s = begun_s
        self._kept = kept
        self._unwatched = len(proxies)  # those at the front of the list
        self._wanted: Call | None = None
        self._ended = threading.Event()

    def values(self, failed: Callable[[BaseException], None]) -> Iterator[Any]:
        """The values; what is left is cancelled when nobody asks any more.

        Args:
            failed: called with what is raised, before it is.

        Raises:
            TimeoutError: a value is not there in time.
            Exception: what a call has raised.
        """
        proxies = self._proxies
        try:
            while proxies:
                try:
                    self._wait()
                    value = self._value()
                except BaseException as error:
                    is_late = proxies[-1]._call.state < DONE  # it was not the call's
                    if is_late and isinstance(error, TimeoutError):
                        raise TimeoutError(self._late()) from None
                    failed(error)
                    raise
                proxies.pop()
                yield value
                del value
        finally:
            for proxy in proxies:
                proxy.cancel()

    def _value(self) -> Any:
        proxy, left_s = self._proxies[-1], self._left_s
        if on_a_loop() and not self._runtime.on_loop:
            # That of a notebook, say: that it stands still is the user's to know.
            return proxy.as_future().result(left_s)
        return proxy.get(left_s)

    @property
    def _left_s(self) -> float | None:
        if self._timeout is None:
            return None
        return max(self._begun_s + self._timeout - time.monotonic(), 0.0)

    def _late(self) -> str:
        return (
            f"map: after {round(self._timeout or 0.0, 3):g} s {len(self._proxies)} "
            "values are missing, and what makes them is cancelled: give it more time, "
            "or leave timeout= out"
        )

    def _wait(self) -> None:
        """Until the next has ended; what else there may be to do is left to ``get``."""
        runtime, proxies = self._runtime, self._proxies
        call = proxies[-1]._call
        if (
            call.state >= DONE
            or call.state == PREPARE
            or runtime.peers.closed
            or not runtime.blocking.is_apart()
        ):
            return
        self._ended.clear()
        self._wanted = call
        if len(proxies) <= self._unwatched:
            start = self._unwatched = max(len(proxies) - WATCHED, 0)
            calls = [proxy._call for proxy in reversed(proxies[start:])]
            runtime.post(self._watch, calls)
        if call.state < DONE:  # else its news may have come before it was wanted
            self._ended.wait(self._left_s)

    def _watch(self, calls: list[Call]) -> None:
        for call in calls:
            self._runtime.watch(call, partial(self._look, call))

    def _look(self, call: Call) -> None:
        if call is self._wanted:
            self._ended.set()
