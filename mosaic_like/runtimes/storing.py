"""What a runtime asks of warehouses: to keep, find, replace and drop values.

Each request is a call over the stream to its warehouse, and what comes of it a task
like any other; what a warehouse does with them is in ``core/shelf.py``. Values without
a key go to the warehouse of this runtime's host; all keys are at the first one.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.exceptions import dump_error
from ..comms.serialization import Payload, Referent
from ..core.call import Call, Stream, rare
from ..core.placement import STRATEGIES, Strategy
from ..core.reach import is_near
from ..core.senders import Kind, kind_of
from ..core.sending import COUNTED_BYTES
from ..core.task import DONE, FAILED
from ..errors import SerializationError
from ..ids import MONITOR_INCARNATION
from ..proxies.task import TaskHandle, TaskProxy
from ..proxies.warehouse import WarehouseObject
from .failures import no_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .actor import ActorRuntime

_NOTHING = marshal.dumps(None, 2)
KEYS = "0"  # of the node whose warehouse has the keys


def _heard(call: Call) -> None:
    if call.rare is not None:
        call.rare.unheard = False


class _Target:
    """What a call that is held keeps alive."""

    __slots__ = ("kept", "stream")

    def __init__(self, stream: Stream, kept: Any = None) -> None:
        self.stream = stream
        self.kept = kept


class _Taken(Referent):
    """Stands for the value of a task that is asked for after this was pickled."""

    __slots__ = ("proxy",)
    kind = wire.TASK

    def __init__(self) -> None:
        self.proxy: TaskProxy[Any] | None = None

    def __reference__(self) -> tuple[_Taken, tuple[Any, ...]]:
        return self, ("task",)

    @property
    def uid(self) -> int:
        return 0 if self.proxy is None else self.proxy._call.uid

    @property
    def owner(self) -> int:
        return 0 if self.proxy is None else self.proxy._call.owner


class Storing:
    """The requests of one runtime; from any thread, but what says on the loop.

    ``depth``: of the frame of the program, counted from who asks here.
    """

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        # By uid and pid of what they lead to, or by uid alone while it is not here.
        self._streams: dict[str | int, Stream] = {}
        self._strategy: Strategy | None = None

    # -- requests ----------------------------------------------------------------------

    def put(self, value: Any, key: str | None, publish: bool, depth: int) -> Call:
        """Have a value kept, as it is now."""
        runtime = self._runtime
        payload = runtime.serializer.dumps(value, what="the value of put")
        if type(payload) is bytes and len(payload) > COUNTED_BYTES:
            payload = Payload(payload)  # which counts for the credit
        if key is None:
            call = self._ask(wire.PUT, self._index(), "put", payload, depth)
        else:
            call = self._ask(wire.PUT_KEY, KEYS, key, payload, depth)
        if publish:
            # If it fails, so has what was put.
            asked = self._ask_about(call, wire.PUBLISH, "publish", depth)
            runtime.when_settled(asked, lambda: _heard(asked))
            TaskProxy(runtime, asked)  # nobody waits for it
        return call

    def heir(self, call: Call) -> TaskProxy[Any] | None:
        """What stands for a task that has ended well, and whose runtime is lost.

        None: its value is not here either.
        """
        result = call.result
        if type(result) is not bytes and result.size:
            return None
        item = rare(call)
        if item.heir is None:
            try:
                value = self._runtime.values.of(call)
            except SerializationError:
                return None
            item.heir = WarehouseObject(
                self._runtime, self.put(value, None, False, depth=2)
            )
        heir: TaskProxy[Any] = item.heir
        return heir

    def look(self, key: str, depth: int) -> Call:
        """The value that is under a key."""
        return self._ask(wire.GET_KEY, KEYS, key, _NOTHING, depth)

    def drop_key(self, key: str, depth: int) -> Call:
        return self._ask(wire.DROP_KEY, KEYS, key, _NOTHING, depth)

    def drop(self, proxy: TaskProxy[Any], depth: int) -> Call:
        """Have the value of a put forgotten, whoever holds it."""
        call = proxy._call
        asked = self._ask_about(call, wire.DROP, "drop", depth, proxy)
        if call.state == DONE:  # what has come here is not to be read any more, too
            error = LookupError(f"{call.name}: it was dropped")
            rare(call).cached = False
            rare(call).value = None
            call.result = dump_error(error, self._runtime.serializer)
            call.state = FAILED
        return asked

    def apply(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], depth: int
    ) -> Call:
        """Call a function in a worker."""
        name, payload = self._dump_call(function, args, kwargs)
        return self._call_in_worker(name, payload, Stream(0, "apply"), depth)

    def exec(
        self,
        key: str,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        depth: int,
    ) -> Call:
        """Replace what is under a key by what a function makes of it.

        All three requests go at once. The worker waits for what the first gives, the
        warehouse for what the worker gives.
        """
        value = _Taken()
        # First: if it cannot travel, nothing is taken.
        name, payload = self._dump_call(function, (value, *args), kwargs)
        taking = self._ask(wire.TAKE_KEY, KEYS, key, _NOTHING, depth)
        taken = value.proxy = TaskProxy(self._runtime, taking)
        # What fails of these two is told by the last.
        self._runtime.when_settled(taking, lambda: _heard(taking))
        stream = Stream(0, "apply")
        self._runtime.silence(stream, (BaseException,))
        making = self._call_in_worker(name, payload, stream, depth)
        made: TaskProxy[Any] = TaskProxy(self._runtime, making)
        replacing = Payload(
            marshal.dumps(taking.uid, 2), (TaskHandle(made), TaskHandle(taken))
        )
        return self._ask(wire.REPLACE_KEY, KEYS, key, replacing, depth)

    def _ask_about(
        self, call: Call, kind: int, what: str, depth: int, kept: Any = None
    ) -> Call:
        return self._runtime.submit(
            _Target(call.stream, kept),  # type: ignore[arg-type] # of a handle only the stream is needed
            what,
            marshal.dumps(call.uid, 2),
            wire.Extra(kind=kind),
            depth + 2,
        )

    def _ask(
        self, kind: int, index: str, method: str, payload: Any, depth: int
    ) -> Call:
        return self._runtime.submit(
            _Target(self._stream(f"warehouse:{index}")),  # type: ignore[arg-type] # as above
            method,
            payload,
            wire.Extra(kind=kind),
            depth + 2,
        )

    def _dump_call(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, Any]:
        name = getattr(function, "__name__", type(function).__name__)
        payload = self._runtime.serializer.dumps_call(
            (function, *args), kwargs, describe=lambda: (name, ("function", "value"))
        )
        return name, payload

    def _call_in_worker(
        self, name: str, payload: Any, stream: Stream, depth: int
    ) -> Call:
        self._aim(stream, self._a_worker)
        # Not ordered: one that waits for its arguments holds up no other.
        extra = wire.Extra(kind=wire.APPLY, ordered=False)
        return self._runtime.submit(_Target(stream), name, payload, extra, depth + 2)  # type: ignore[arg-type] # as above

    # -- where they go -----------------------------------------------------------------

    def _index(self) -> str:
        """Of the node whose warehouse is that of this runtime."""
        runtime = self._runtime
        if kind_of(runtime.uid) is Kind.WORKER:
            return runtime.uid.split(":")[1]
        nodes = runtime.of_kind("node")
        near = [m.uid for m in nodes if is_near(m, runtime.me)]
        return near[0].split(":")[1] if near else KEYS

    def _stream(self, uid: str) -> Stream:
        """To a warehouse, or waiting for it."""
        members = list(self._runtime.members.values())
        here = next((m.incarnation for m in members if m.uid == uid), None)
        # One that was waited for keeps its stream, and so the order of its requests.
        stream = self._streams.get(uid if here is None else here)
        if stream is None:
            stream = self._streams.get(uid)
        if stream is None:
            stream = self._streams.setdefault(uid, Stream(0, "warehouse"))
            self._aim(stream, lambda: self._warehouse(uid, stream))
        return stream

    def _warehouse(self, uid: str, stream: Stream) -> Any:
        """On the loop: the incarnation, or why there will be none, or None yet."""
        runtime = self._runtime
        found: Any = None
        for member in runtime.members.values():
            if member.uid == uid:
                found = member.incarnation
        if found is None:
            node = f"node:{uid.split(':')[1]}"
            if not any(m.uid == node for m in runtime.members.values()):
                lost = [
                    cause for cause in runtime.causes.values() if cause[0].uid == node
                ]
                found = lost[-1] if lost else None
        if found is not None:
            self._streams.pop(uid, None)
        if isinstance(found, int):
            self._streams[found] = stream
        return found

    def _a_worker(self) -> int | None:
        """On the loop: one of this host, by the strategy; else any."""
        runtime = self._runtime
        workers = runtime.leavers.open(runtime.of_kind("worker"))
        if not workers:
            return None
        if self._strategy is None:
            self._strategy = STRATEGIES[runtime.config.monitor_strategy]()
        near = [m for m in workers if is_near(m, runtime.me)]
        return self._strategy.choose(
            near or workers, runtime.placing.load_at
        ).incarnation

    def _aim(self, stream: Stream, find: Callable[[], Any]) -> None:
        """Place a stream as soon as what it is to lead to is found."""

        def attempt() -> bool:
            runtime = self._runtime
            found = find()
            if found is None and runtime.cluster_lost:
                found = no_cluster(runtime.cluster_lost)
            if found is None:
                return False
            outbox = None
            if isinstance(found, int):
                outbox = runtime.outbox(found)
                if outbox is None and found in runtime.members:
                    return False  # it is just being added
                found = runtime.causes.get(found, (None, "it is gone"))
            if outbox is not None:
                runtime.caller.placed(stream, outbox)
                runtime.caller.held.release(stream)
                return True
            # Known by an owner that is lost, so that calls which mention it go out,
            # and fail as they do for a lost one.
            lost = found[0] if type(found) is tuple else None
            stream.owner = MONITOR_INCARNATION if lost is None else lost.incarnation
            runtime.caller.stream_failed(stream, found)
            runtime.caller.held.feed()
            return True

        def aim() -> None:
            if not attempt():
                self._runtime.placing.later(attempt)

        if self._runtime.on_loop:
            aim()
        else:
            self._runtime.post(aim)

    def streams(self) -> Iterable[Stream]:
        """All that lead to warehouses."""
        return list(self._streams.values())

    def lost(self, incarnation: int) -> None:
        """On the loop: what leads there is of no use any more."""
        self._streams.pop(incarnation, None)
