"""The function tasks of one runtime: what sends them, and what they run in.

Which worker gets which task is decided in ``core/dispatch.py``; here hosts are made in
the workers, functions are sent to them, and the queues are told who comes and goes.
What a task's policy wants before a call, around an attempt and after the end is asked
for in ``function.py`` and ``code.py``: nothing of it is known here.
"""

from __future__ import annotations

import contextvars
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms.messages import Options
from ..core.caller import DROPPED, Call, rare
from ..core.dispatch import FunctionQueue, Window
from ..core.retries import RetryPolicy
from ..errors import Verdict
from ..proxies.retries import load_retries
from .host import FORGET, LEARN, CoroutineHost, FunctionHost

if TYPE_CHECKING:
    import asyncio

    from ..comms.messages import Extra, Member
    from ..core.dispatch import Entry
    from .code import Code

LOOK_S = 0.05  # between two looks at what lies behind a long call
# Coroutine functions overlap: a worker is given many of them.
COROUTINE_WINDOW = 64
MOST_COROUTINES = 1000

_PLAIN, _ASYNC = 0, 1


class Target:
    """What ``runtime.submit`` needs of where a call goes."""

    __slots__ = ("stream",)

    def __init__(self, queue: FunctionQueue) -> None:
        self.stream = queue.unplaced


class Functions:
    """Of one runtime; made when the first function is submitted.

    Args:
        runtime: a ``runtimes.actor.ActorRuntime``.
    """

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        caller = runtime.caller
        self.queues = (
            FunctionQueue(self, caller, "task"),
            FunctionQueue(
                self,
                caller,
                "task",
                COROUTINE_WINDOW,
                MOST_COROUTINES,
                overlaps=True,
            ),
        )
        self.targets = tuple(map(Target, self.queues))
        self._open = [False, False]  # hosts are wanted
        self._handles: dict[Window, Any] = {}  # of the hosts
        self._codes: dict[str, tuple[bytes, Any]] = {}  # by name, as they are sent
        self._timer: asyncio.TimerHandle | None = None

    # -- functions ---------------------------------------------------------------------

    def target(self, code: Code) -> Target:
        """Where calls of a function go; it is pickled when this is first asked.

        Raises:
            SerializationError: it cannot travel.
        """
        if code.sender is not self:
            self._take(code)
        return self.targets[code.is_async]

    def _take(self, code: Code) -> None:
        sent = code.dumps()
        base = code.name.lstrip("_") or "function"
        name, number = base, 1
        while name in self._codes:
            number += 1
            name = f"{base}~{number}"
        self._codes[name] = sent
        code.method, code.sender = name, self
        if not self._open[code.is_async]:
            self._on_loop(self._open_hosts, int(code.is_async))

    def drop(self, name: str, is_async: bool) -> None:
        """Nobody has the function any more; from any thread."""
        if not self.runtime.peers.closed:
            self.runtime.post(self._forget, name, is_async)

    def _forget(self, name: str, is_async: bool) -> None:
        if any(call.method == name for call in self.runtime.caller.calls.values()):
            return  # calls of it are under way; it is kept until this runtime ends
        self._codes.pop(name, None)
        for window in self.queues[is_async].windows.values():
            if name in window.knows and window in self._handles:
                window.knows.discard(name)
                self._aside(window, FORGET, name)

    def teach(self, window: Window, function: str) -> None:
        self._aside(window, LEARN, function, *self._codes[function])

    def _aside(self, window: Window, method: str, *args: Any) -> None:
        """Call the host itself: that takes no room of its window."""
        runtime = self.runtime
        stream = window.stream
        payload = runtime.serializer.dumps_call(args, {})
        frame = sys._getframe()
        call = Call(
            next(runtime.uids), stream, method, frame.f_code, frame.f_lasti, time.time()
        )
        call.hold = DROPPED  # nobody has a proxy of it
        call.waiters = [lambda: self._ended_aside(window)]
        stream.credit += 1
        runtime.caller.submit(call, payload, None, self._handles[window])

    def _ended_aside(self, window: Window) -> None:
        window.stream.credit -= 1

    # -- workers -----------------------------------------------------------------------

    def _on_loop(self, function: Any, *args: Any) -> None:
        """In order with the calls, and not inside the one that runs."""
        if self.runtime.on_loop:
            contextvars.Context().run(function, *args)
        else:
            self.runtime.post(function, *args)

    def _open_hosts(self, kind: int) -> None:
        if self._open[kind]:
            return
        self._open[kind] = True
        for member in self.runtime.of_kind("worker"):
            self._open_host(member, kind)
        self.queues[kind].dispatch()

    def _open_host(self, member: Member, kind: int) -> None:
        options = Options(
            "task",
            is_async=kind == _ASYNC,
            max_concurrency=MOST_COROUTINES if kind == _ASYNC else None,
            expose=[LEARN, FORGET],
            stateless=True,
        )
        cls = CoroutineHost if kind == _ASYNC else FunctionHost
        handle = self.runtime.create(cls, (), {}, options, member)
        queue = self.queues[kind]
        stream = handle.stream
        # The construction takes one, and gives it back when it has ended.
        stream.credit = queue.least + (stream.outbox is None)
        window = queue.open(member.incarnation, stream)
        self._handles[window] = handle
        self.runtime.when_settled(handle.call, lambda: self._built(window))

    def _built(self, window: Window) -> None:
        window.stream.credit -= 1

    def joined(self, member: Member) -> None:
        """A worker has come."""
        for kind in (_PLAIN, _ASYNC):
            if self._open[kind]:
                contextvars.Context().run(self._open_host, member, kind)
                self.queues[kind].dispatch()

    def lost(self, member: Member) -> None:
        """A worker has gone; its calls were told so before."""
        for queue in self.queues:
            for window in list(queue.windows.values()):
                if window.owner == member.incarnation:
                    del self._handles[window]
                    queue.close(window)

    # -- Dispatching -------------------------------------------------------------------

    def when_settled(self, call: Call, then: Any) -> None:
        self.runtime.when_settled(call, then)

    def sent(self, call: Call, extra: Extra) -> None:
        if extra.timeout_s is not None or extra.interrupt is not None:
            self.runtime.limiting.limit(call, extra)

    def arm(self) -> None:
        if self._timer is None:
            loop = self.runtime.loop
            context = self.runtime.context
            self._timer = loop.call_later(LOOK_S, self._look, context=context)

    def _look(self) -> None:
        self._timer = None
        now_s = time.time()
        if [queue for queue in self.queues if queue.look(now_s)]:
            self.arm()

    def recall(self, owner: int, uids: list[int]) -> None:
        """Ask a worker for those that have not started."""

    def survives(self, entry: Entry, cause: Any) -> Entry | None:
        """A call that has not started goes elsewhere; one that ran is run again."""
        deaths = self.runtime.deaths
        if deaths.verdict(entry.call, cause) is Verdict.NOT_STARTED:
            return entry
        extra = entry.extra
        if extra is None or not extra.max_retries or type(cause) is not tuple:
            return None
        policy = RetryPolicy(load_retries(extra.retry))
        if not policy.concerns(deaths.error(entry.call, *cause)):
            return None
        rare(entry.call).attempt += 1
        extra = msgspec.structs.replace(extra, max_retries=extra.max_retries - 1)
        return entry._replace(extra=extra)


def functions_of(runtime: Any) -> Functions:
    """Those of a runtime, made when first asked for; from any thread."""
    functions = runtime.functions
    if functions is None:
        made = Functions(runtime)
        with runtime.functions_lock:
            functions = runtime.functions = runtime.functions or made
    return functions  # type: ignore[no-any-return]  # the runtime's is one of these
