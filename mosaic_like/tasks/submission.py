"""The function tasks of one runtime: what sends them, and what they run in.

Which worker gets which task is decided in ``core/dispatch.py``; here hosts are made in
the workers, functions are sent to them, and the queues are told who comes and goes.
What a task's policy wants before a call, around an attempt and after the end is asked
for in ``calls.py`` and ``code.py``: nothing of it is known here.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms.exceptions import dump_error
from ..comms.messages import LOST, Extra, Learn, Options, Recall
from ..core.call import HELD, rare
from ..core.dispatch import FunctionQueue
from ..core.payloads import extra_of
from ..core.retries import FailedAttempt, RetryPolicy
from ..core.task import APART, DONE, FAILED
from ..errors import Verdict
from ..ids import task_name
from ..proxies.retries import ask_here, load_retries
from .connections import Connections
from .host import FunctionHost

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..comms.messages import Again, Member, Recalled
    from ..comms.serialization import Payload
    from ..core.call import Call
    from ..core.window import Entry, Window
    from .code import Code
    from .prepared import Prepared

LOOK_S = 0.05  # between two looks at what lies behind a long call
# Coroutine functions overlap: a worker is given many of them.
COROUTINE_WINDOW = 64
MOST_COROUTINES = 1000

_PLAIN, _ASYNC = 0, 1
_HELPER = "helper:"  # of its uid
_MOST_HELPERS = 1000  # far more than there ever are


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
        self.guards: Any = None  # of calls with a policy: guarding.Guards
        self.serving: Any = None  # of tasks that are called by name: serving.Serving
        caller = runtime.caller
        self.queues = (
            FunctionQueue(self, caller),
            FunctionQueue(
                self,
                caller,
                COROUTINE_WINDOW,
                MOST_COROUTINES,
                overlaps=True,
            ),
        )
        self.targets = tuple(map(Target, self.queues))
        self._open = [False, False]  # hosts are wanted
        self._helpers: set[int] = set()  # that may be used, by incarnation
        self._handles: dict[Window, Any] = {}  # of the hosts
        self._keys: dict[Window, int] = {}  # under which functions are sent there
        self._codes: dict[str, bytes | Payload] = {}  # by name, as they are sent
        self._numbers: dict[str, int] = {}  # of the last one of a name
        self._timer: asyncio.TimerHandle | None = None
        self.connections = Connections(self)

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
        sent = code.dumps(self.runtime.serializer)
        base = code.name.lstrip("_") or "function"
        # Never the name of one that is forgotten: a host may still have that.
        number = self._numbers[base] = self._numbers.get(base, 0) + 1
        name = base if number == 1 else f"{base}{APART}{number}"
        self._codes[name] = sent
        code.method, code.sender = name, self
        if not self._open[code.is_async]:
            self.on_loop(self._open_hosts, int(code.is_async))

    def drop(self, name: str, is_async: bool) -> None:
        """Nobody has the function any more; from any thread."""
        if not self.runtime.peers.closed:
            with contextlib.suppress(RuntimeError):  # its loop has closed
                self.runtime.post(self._forget, name, is_async)

    def _forget(self, name: str, is_async: bool) -> None:
        calls = (*self.runtime.caller.calls.values(), *self.connections.calls.values())
        if any(call.method == name for call in calls):
            return  # calls of it are under way; it is kept until this runtime ends
        self._codes.pop(name, None)
        for window in self.queues[is_async].windows.values():
            if name in window.knows and window.stream.outbox is not None:
                window.knows.discard(name)
                self._tell(window, name, b"")

    def teach(self, window: Window, function: str) -> None:
        self._tell(window, function, self._codes[function])

    def _tell(self, window: Window, name: str, sent: bytes | Payload) -> None:
        outbox = window.stream.outbox
        assert outbox is not None, "it has room"
        key = self._keys[window]
        if isinstance(sent, bytes):
            outbox.send(Learn(key, name, sent))
        else:
            extra = extra_of(sent, None)
            outbox.send(Learn(key, name, sent.data, extra), sent)

    # -- calls that are prepared: for the runtime's thread -----------------------------

    def send(self, prepared: Prepared) -> None:
        """It goes into its queue."""
        call = prepared.call
        queue = self.queues[prepared.task.is_async]
        queue.let_go(call)
        batch_size = prepared.task._options.batch_size
        if batch_size is not None:
            queue.widen(batch_size)
        if prepared.owner:
            rare(call).place = prepared.owner
            queue.place(call, prepared.owner)
        target = self.targets[prepared.task.is_async]
        self.runtime.caller.submit(call, prepared.payload, prepared.extra, target)

    def hold(self, call: Call, then: Callable[[], Any] | None) -> None:
        """Keep a call back; ``then`` is called if it is cancelled meanwhile."""
        queue = call.stream.queue
        assert queue is not None, "a function task that was not sent"
        queue.hold(call, then)

    def send_again(self, queue: FunctionQueue, entry: Entry) -> None:
        """A call that had ended goes into its queue once more."""
        call, payload, extra, _ = entry
        queue.let_go(call)
        place = 0 if call.rare is None else call.rare.place
        if place and queue.window_of(place) is not None:  # else it was lost with that
            queue.place(call, place)
        target = self.targets[self.queues.index(queue)]
        self.runtime.caller.submit(call, payload, extra, target)

    def give(self, call: Call, value: Any, reason: str | None) -> None:
        """A call that was not sent is done: this runtime has its value."""
        self.give_data(call, self.runtime.serializer.dumps(value), reason)

    def give_data(self, call: Call, data: bytes | Payload, reason: str | None) -> None:
        """The same, of a value that is pickled."""
        assert call.stream.queue is not None
        call.stream.queue.let_go(call)
        rare(call).reason = reason
        self.runtime.give_here(call, data)

    def refuse(self, call: Call, error: BaseException, reason: str, kind: int) -> None:
        """A call that was not sent has failed."""
        assert call.stream.queue is not None
        call.stream.queue.let_go(call)
        rare(call).reason = reason
        data = dump_error(error, self.runtime.serializer)
        self.runtime.caller.end_unsent(call, FAILED, kind, data)

    # -- workers -----------------------------------------------------------------------

    def on_loop(self, function: Any, *args: Any) -> None:
        """Call it on the runtime's thread, in order with the calls, in no call."""
        if self.runtime.on_loop:
            contextvars.Context().run(function, *args)
        else:
            self.runtime.post(function, *args)

    def _open_hosts(self, kind: int) -> None:
        if self._open[kind]:
            return
        self._open[kind] = True
        workers = self.runtime.of_kind("worker")
        if self.runtime.uid.startswith(
            _HELPER
        ):  # its thread may run them while it waits
            workers.append(self.runtime.me)
        for member in self.runtime.leavers.open(workers):
            self._open_host(member, kind)
        self.queues[kind].dispatch()

    def _open_host(self, member: Member, kind: int) -> None:
        options = Options(
            "task",
            is_async=kind == _ASYNC,
            max_concurrency=MOST_COROUTINES if kind == _ASYNC else None,
            stateless=True,
        )
        key = next(self.runtime.uids)
        handle = self.runtime.create(FunctionHost, (key,), {}, options, member)
        queue = self.queues[kind]
        window = queue.open(member.incarnation, handle.stream, member.machine)
        self._handles[window], self._keys[window] = handle, key
        if member.incarnation == self.runtime.incarnation:
            queue.home = window

    def helped(self, helper: int, may: bool) -> None:
        """A helper, which joins or has joined, may be used for plain functions, or not.

        Args:
            helper: its incarnation.
            may: False: no longer.
        """
        if not may and helper in self._helpers:
            self._helpers.discard(helper)
            self.queues[_PLAIN].retire(helper, time.time())
        elif may and len(self._helpers) < _MOST_HELPERS:
            self._helpers.add(helper)
            member = self.runtime.members.get(helper)
            if member is not None and member.uid.startswith(_HELPER):
                self._help(member)

    def _help(self, member: Member) -> None:
        queue = self.queues[_PLAIN]
        if not (self._open[_PLAIN] and self.runtime.leavers.open([member])):
            return
        if not queue.restore(member.incarnation):
            contextvars.Context().run(self._open_host, member, _PLAIN)
        queue.dispatch()

    def joined(self, member: Member) -> None:
        """A worker has come."""
        if member.uid.startswith(_HELPER):
            if member.incarnation in self._helpers:
                self._help(member)
            return
        for kind in (_PLAIN, _ASYNC):
            if self._open[kind]:
                contextvars.Context().run(self._open_host, member, kind)
                self.queues[kind].dispatch()

    def leaving(self, incarnation: int) -> None:
        """A worker is to leave in order."""
        for queue in self.queues:
            queue.retire(incarnation, time.time())

    def lost(self, member: Member) -> None:
        """A worker has gone; its calls were told so before."""
        self._helpers.discard(member.incarnation)
        for queue in self.queues:
            for window in list(queue.windows.values()):
                if window.owner == member.incarnation:
                    del self._handles[window], self._keys[window]
                    queue.close(window)
        if self.serving is not None:
            self.serving.look()

    # -- Dispatching -------------------------------------------------------------------

    def when_settled(self, call: Call, then: Any) -> None:
        self.runtime.when_settled(call, then)

    def sent(self, call: Call, extra: Extra) -> None:
        if extra.timeout_s is not None or extra.interrupt is not None:
            self.runtime.limiting.limit(call, extra)

    def mention(self, payload: Payload, to: int) -> None:
        """A payload goes out: others learn where the tasks in it are.

        Args:
            payload: with handles.
            to: incarnation of who gets it.
        """
        for handle in payload.handles:
            proxy = getattr(handle, "proxy", None)
            call = None if proxy is None else proxy._call
            if call is not None and call.state < DONE and call.stream.queue is not None:
                call.stream.queue.reclaiming.mention(call, to)

    def arm(self) -> None:
        if self._timer is None:
            loop = self.runtime.loop
            context = self.runtime.context
            self._timer = loop.call_later(LOOK_S, self._look, context=context)

    def _look(self) -> None:
        self._timer = None
        # Results that mention tasks which had no place when these were made.
        self.runtime.placing.try_waiting()
        now_s = time.time()
        if [queue for queue in self.queues if queue.look(now_s)]:
            self.arm()

    def recall(self, owner: int, uids: list[int]) -> None:
        outbox = self.runtime.outbox(owner)
        if outbox is not None:
            outbox.send(Recall(uids))

    def recalled(self, message: Recalled, sender: int) -> None:
        """A worker has answered."""
        for queue in self.queues:
            queue.reclaiming.given_back(sender, message.asked, set(message.taken))

    def again(self, message: Again, sender: int) -> None:
        """A worker says that an attempt has failed, and when the next is to begin."""
        for queue in self.queues:
            entry = queue.handed_back(sender, message.uid)
            if entry is not None:
                extra = msgspec.structs.replace(
                    entry.extra or Extra(), attempt=message.attempt
                )
                self._wait_again(queue, entry._replace(extra=extra), message.delay_s)

    def _wait_again(self, queue: FunctionQueue, entry: Entry, delay_s: float) -> None:
        call, payload, extra, _ = entry
        item = rare(call)
        item.running_s, item.reason = None, "retry"
        runtime = self.runtime
        assert extra is not None, "made by again"
        runtime.limiting.begun(call, extra.attempt, delay_s)
        guard = item.guard

        def look() -> None:
            if item.watched is not None:
                item.watched.look(call)

        def send() -> None:
            queue.let_go(call)
            item.reason = None
            look()
            runtime.caller.submit(call, payload, extra, self.targets[0])

        def resume() -> None:
            if guard is None:
                send()
            else:
                guard.again(send)

        look()
        if guard is not None:
            guard.between()
        timer = runtime.loop.call_later(delay_s, resume, context=runtime.context)
        queue.hold(call, timer.cancel)

    def lose_all(self, error: Callable[[Verdict], BaseException]) -> None:
        """The cluster is no more: what is in no worker, and never will be, fails."""
        for call in list(self.runtime.caller.calls.values()):
            queue = call.stream.queue
            if call.state < DONE and queue is not None and queue.withdraw(call):
                rare(call).reason = "lost"
                ran = Verdict.MAYBE_RAN if call.began_before else Verdict.NOT_STARTED
                data = dump_error(error(ran), self.runtime.serializer)
                self.runtime.caller.end_unsent(call, FAILED, LOST, data)

    def blocked_here(self) -> int:
        executor = self.runtime.executor
        uids: list[int] = [
            t.uid for t in executor.main.stack[-1:] if t.uid in executor.waits.by_uid
        ]
        return uids[0] if uids else 0

    def failed(self, queue: FunctionQueue, entry: Entry) -> None:
        if entry.call.hold == HELD:  # else nobody can ask for it again
            self.connections.failed(queue, entry)

    def stayed(self, queue: FunctionQueue, entry: Entry) -> None:
        if entry.call.hold == HELD:
            self.connections.stayed(queue, entry)

    def survives(self, entry: Entry, cause: Any) -> Entry | None:
        """A call that has not started goes elsewhere; one that ran is run again."""
        deaths = self.runtime.deaths
        if deaths.verdict(entry.call, cause) is Verdict.NOT_STARTED:
            self._remember(entry.call, cause)
            return entry
        extra = entry.extra
        attempt = 1 if entry.call.rare is None else entry.call.rare.attempt
        if extra is None or type(cause) is not tuple:
            return None
        retries = extra.max_retries or 0
        if attempt > retries:
            return None
        policy = RetryPolicy(load_retries(extra.retry))
        error = deaths.error(entry.call, *cause)
        call = entry.call
        failed = FailedAttempt(task_name(call.first_uid), call.name, attempt, retries)
        if not (policy.concerns(error) and ask_here(policy, error, failed)):
            return None
        rare(entry.call).attempt = attempt + 1
        self._remember(call, cause)
        extra = msgspec.structs.replace(extra, attempt=attempt + 1)
        return entry._replace(extra=extra)

    def _remember(self, call: Call, cause: Any) -> None:
        """It goes elsewhere: who holds it may ask where."""
        if type(cause) is tuple:
            self.runtime.restarts.seeking.remember(call, cause[0])


def functions_of(runtime: Any) -> Functions:
    """Those of a runtime, made when first asked for; from any thread."""
    functions = runtime.functions
    if functions is None:
        made = Functions(runtime)
        with runtime.functions_lock:
            functions = runtime.functions = runtime.functions or made
    return functions  # type: ignore[no-any-return]  # the runtime's is one of these
