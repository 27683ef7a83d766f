"""A cluster without processes, for ``mosaic.local``: each call runs where it is made.

Monitor, warehouse and one worker, which is the program itself, are on one loop that
turns while the program makes calls or waits: see ``stepping``. The worker's main thread
is the one that does so. So a call has ended when the line that made it has, unless it
waits for time or for another call, and all else is as in any cluster: arguments are
pickled, states, errors, retries and order are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import secrets
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ..comms.within import Within
from ..core.call import CALL_CREDIT
from ..core.task import DONE
from ..core.tessera import TesseraState
from ..tasks.submission import functions_of
from .base import Base
from .interrupts import Interrupts
from .loops import on_a_loop
from .main_thread import MAX_DEPTH, Wake
from .monitor import Monitor
from .spec import Spec
from .stepping import SteppedLoop
from .user import UserRuntime
from .warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from ..comms import messages as wire
    from ..config import Config
    from ..core.call import Call
    from ..core.task import Task

_MONITOR = "ipc:///monitor"  # an address like any other, that no socket has
CLOSE_S = 10.0  # that calls that were cancelled, and each ``__close__``, may take
PATIENCE_S = 10.0  # of a thread that waits while another is inside a call
_LOOK_S = 0.02  # between two looks at the end


class _OnStepped(Base):
    """One of the runtimes on the loop."""

    loop: SteppedLoop

    def new_transport(self, loop: Any) -> Any:
        return Within(loop, loop.bound)


class _Monitor(_OnStepped, Monitor):
    def _watch(self, member: wire.Member) -> None:
        """It ends with this process."""


class _Warehouse(_OnStepped, Warehouse):
    def aside(self, function: Callable[[], Any], done: Callable[[Any], None]) -> None:
        done(function())

    def close(self) -> None:
        super().close()
        self.keeper.close()
        if self.keeper.ledger is not None:
            self.keeper.ledger.release()


class _Uninterrupted(Interrupts):
    """Nobody can interrupt a method: the loop turns only between them."""

    installed = True

    def install(self) -> None:
        pass

    def send(self, task: Task) -> None:
        pass


class _Queue(queue.SimpleQueue[Any]):
    """What the main thread is to run; who takes from it turns the loop."""

    def __init__(self, loop: SteppedLoop) -> None:
        self._loop = loop
        self._items: deque[Any] = deque()
        self.is_brief = False  # who waits in a method looks only at what can be run now
        self.ran_out = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self._items.append(item)
        self._loop.stop_soon()

    def empty(self) -> bool:
        return not self._items

    def get(self, block: bool = True, timeout: float | None = -1.0) -> Any:
        """The next; without a timeout None, which ends who runs them, if there is none.

        Raises:
            queue.Empty: there was none in that time.
        """
        while True:
            self._loop.settle()
            if self._items:
                return self._items.popleft()
            if timeout == -1.0:
                return None
            if self.is_brief:
                self.ran_out = True
                return Wake()
            until_s = None if timeout is None else time.monotonic() + timeout
            self._loop.wait(timeout)
            if until_s is not None and time.monotonic() >= until_s and self.empty():
                raise queue.Empty


class _Any:
    """Stands for the call of a wait that is for none: what was made inside counts."""

    uid = tessera = 0
    name = "a call"

    @property
    def stream(self) -> _Any:
        return self


class Solo(_OnStepped, UserRuntime):
    """The runtime of the program; ``Solo.begin`` makes it, with the others.

    Args:
        loop: of all of them.
        config: as of a cluster.
    """

    main_thread = True

    def __init__(self, loop: SteppedLoop, config: Config) -> None:
        super().__init__(loop, config)
        self.hold: Any = None  # who started it instead of a cluster, if anybody did
        self._others: list[Base] = []
        self._turning = threading.RLock()
        self._queue = _Queue(loop)
        self.executor.step(self._queue, _Uninterrupted(()))
        self.block = self._wait
        self.block_until = self._wait_until
        self.waits_on_main = self._waits
        loop.on_turn = self._turned
        loop.turned = self._turn

    @classmethod
    def begin(cls, config: Config) -> Solo:
        """A new one, which can be used at once."""
        loop = SteppedLoop()
        spec = Spec(config.to_bytes(), "", _MONITOR, secrets.token_bytes(8))
        monitor = _Monitor(loop, spec)
        monitor.start(-1)
        spec.uid = "warehouse:0"
        warehouse = _Warehouse(loop, spec)
        solo = cls(loop, config)
        solo.bind("ipc:///worker")
        solo._others = [warehouse, monitor]
        for joining in (
            warehouse.start(),
            solo.join("worker", _MONITOR, spec.monitor_token, "worker:0:0"),
        ):
            joined = loop.create_task(joining)
            loop.settle()  # nothing of it waits for anything outside
            joined.result()
        return solo

    def joined_cluster(self, settings: bytes) -> None:
        super().joined_cluster(settings)
        for functions in functions_of(self).queues:
            functions.least = CALL_CREDIT  # nobody else could have what does not fit

    # -- turning the loop --------------------------------------------------------------

    def _turned(self, begins: bool) -> None:
        self._ident = threading.get_ident() if begins else 0

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        super().post(function, *args)
        if not self.on_loop:
            self._turn()

    def _turn(self) -> None:
        """Do what can be done now, in this thread, unless another one does it."""
        if self.on_loop:
            return  # inside a coroutine or a callback: it turns already
        if self.loop.is_closed() or not self._turning.acquire(blocking=False):
            return
        host = asyncio._get_running_loop()
        asyncio._set_running_loop(None)  # plain methods have none
        try:
            self._run_main()
        finally:
            asyncio._set_running_loop(host)
            if host is not None:
                self.loop.attach(host)
            self._turning.release()

    def _run_main(self) -> None:
        main = self.executor.main
        waiter = main.waits_here()
        if waiter is None:
            main.run_forever()
        elif len(main.stack) < MAX_DEPTH - 1:
            items = self._queue
            before, items.is_brief, items.ran_out = items.is_brief, True, False
            try:
                main.wait(waiter, lambda: items.ran_out, _Any(), None)  # type: ignore[arg-type]  # see _Any
            finally:
                items.is_brief = before

    # -- waiting -----------------------------------------------------------------------

    def _waits(self) -> bool:
        """A thread that waits is to turn the loop; see ``Blocking.waits_on_main``."""
        return not self.on_loop and not on_a_loop()

    def _wait(self, call: Call, timeout: float | None, value: bool = False) -> None:
        if self.blocking.waits_on_main() or not self._waits():
            with self._at_leisure():
                self.blocking.block(call, timeout, value)
            return

        def ended() -> bool:
            if call.state == DONE and value and self.is_away(call):
                self.post(self.fetch, call, self.wake_main)
                return not self.is_away(call)
            return call.state >= DONE

        if not ended():
            self.when_settled(call, self.wake_main)
            if not self._turn_until(ended, timeout):
                time_s = round(timeout or 0.0, 3)
                raise TimeoutError(f"{call.name} has not ended in {time_s:g} s")

    def _wait_until(
        self, condition: Callable[[], bool], call: Call, timeout: float | None
    ) -> bool:
        if self.blocking.waits_on_main():
            with self._at_leisure():
                return self.blocking.block_until(condition, call, timeout)
        return self._turn_until(condition, timeout)

    @contextlib.contextmanager
    def _at_leisure(self) -> Iterator[None]:
        """A method waits until something has ended, and not only looks."""
        before, self._queue.is_brief = self._queue.is_brief, False
        try:
            yield
        finally:
            self._queue.is_brief = before

    def _turn_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Of a thread that is in no call; who makes it true wakes the main thread.

        Raises:
            RuntimeError: another thread is inside a call for too long.
        """
        begun_s = time.monotonic()
        until_s = math.inf if timeout is None else begun_s + timeout
        while not condition():
            now_s = time.monotonic()
            if now_s >= until_s:
                return False
            if self._turning.acquire(timeout=min(until_s - now_s, PATIENCE_S)):
                try:
                    self._turn()
                    if not condition():
                        left_s = until_s - time.monotonic()
                        self.loop.wait(None if left_s == math.inf else max(left_s, 0))
                        self._turn()
                finally:
                    self._turning.release()
            elif time.monotonic() - now_s >= PATIENCE_S:
                raise RuntimeError(
                    "inside mosaic.local() another thread of this program is in a "
                    f"call, and has been for {PATIENCE_S:g} s; if it waits for this "
                    "thread neither ever ends: wait in the call itself, or run it in "
                    "a cluster"
                )
        return True

    # -- as a value, where it stands for the head of a cluster -------------------------

    def __await__(self) -> Generator[Any, None, Solo]:
        yield from ()
        return self

    def __enter__(self) -> Solo:
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.stop().wait()

    async def __aenter__(self) -> Solo:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hold.stop()

    def cancel_all(self, reason: str) -> tuple[int, int]:
        """Cancel every call that has not ended; how many ran, and how many waited."""
        calls = [call for call in self.caller.calls.values() if call.state < DONE]
        for call in calls:
            self.cancel(call, reason)
        return len(calls), 0

    # -- the end -----------------------------------------------------------------------

    def end(self) -> None:
        """Cancel what has not ended, close all tesserae, the last made first."""
        if self.peers.closed:
            return
        self.post(self.peers.on_dropped)  # what failed unasked is told
        self.stopping = True
        why = "mosaic.local() has ended"
        tasks = [task for task in self.worker.tasks.values() if not task.settled]
        for task in tasks:
            self.post(self.worker.stopping.cancel, task.uid, why)
        tesserae = list(self.worker.tesserae.values())
        self._until(lambda: not any(t.active for t in tesserae))
        for tessera in reversed(tesserae):
            if tessera.active or not hasattr(tessera.instance, "__close__"):
                continue
            if tessera.state in (TesseraState.LISTENING, TesseraState.CLOSING):
                self.post(self.worker.freed, tessera.uid)
                self._until(lambda t=tessera: t.state is TesseraState.STOPPED)  # type: ignore[misc]
        loop = self.loop
        loop.detach()
        for runtime in (self, *self._others):
            runtime.close()
        loop.settle()
        for left in asyncio.all_tasks(loop):
            left.cancel()
        loop.settle()
        loop.close()

    def _until(self, condition: Callable[[], bool]) -> None:
        """Turn the loop until then, but not for ever."""
        until_s = time.monotonic() + CLOSE_S
        while not condition() and (left_s := until_s - time.monotonic()) > 0:
            self.loop.wait(min(left_s, _LOOK_S))
            self._turn()

    def __repr__(self) -> str:
        return f"<local{' · stopped' if self.peers.closed else ''}>"
