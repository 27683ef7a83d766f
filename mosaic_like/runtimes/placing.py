"""Where tesserae go, and how they are met: the streams of one runtime.

Making a tessera finds it a worker, or waits until there is one. A tessera or task of
another runtime is met when a reference to it arrives; its stream is made then, and
waits if its owner has not been announced.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from .. import ids
from ..comms import messages as wire
from ..core.call import DROPPED, FOREIGN, RELEASED, Call, Stream
from ..core.placement import STRATEGIES, RoundRobin, Strategy
from ..proxies.handles import TesseraHandle
from .failures import no_cluster
from .port import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..comms.serialization import Payload
    from .actor import ActorRuntime
    from .peer import Peer


class Placing:
    """The streams of a runtime and what waits for a place."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self.streams: WeakValueDictionary[int, Stream] = WeakValueDictionary()
        self._foreign: dict[int, Stream] = {}  # for tasks of others, by owner
        self._meeting = threading.Lock()
        self._unplaced: deque[Callable[[], bool]] = deque()
        self._labels: dict[str, int] = {}
        self._classes: WeakKeyDictionary[type, bytes | Payload] = WeakKeyDictionary()
        self._made: dict[int, int] = {}  # tesserae made, by incarnation
        self._strategy: Strategy = RoundRobin()

    def joined(self) -> None:
        """The runtime has its incarnation and its configuration."""
        runtime = self._runtime
        self._strategy = STRATEGIES[runtime.config.monitor_strategy]()
        if isinstance(self._strategy, RoundRobin) and runtime.uid != "head":
            # Not all runtimes begin with the same worker.
            self._strategy = RoundRobin(runtime.incarnation)

    def create(
        self,
        cls: type,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: wire.Options,
        where: Any = None,
        depth: int = 2,
    ) -> TesseraHandle:
        """Make a tessera; its class and arguments are pickled now, here.

        Args:
            cls: the user's class.
            args, kwargs: of its constructor.
            options: how it runs; its name is filled in.
            where: None for the strategy's choice, a Member, or ``self`` for here.
            depth: of the frame of who asks.
        """
        payload = self._runtime.serializer.dumps_call(
            args, kwargs, describe=lambda: (cls.__qualname__, ())
        )
        class_data = self._classes.get(cls)
        if class_data is None:
            class_data = self._runtime.serializer.dumps_class(cls)
            self._classes[cls] = class_data
        if options.unique:
            options.name = f"{cls.__name__}:{options.unique}"  # the same everywhere
        elif not options.stateless:  # else it has no name of its own
            number = self._labels[cls.__name__] = self._labels.get(cls.__name__, 0) + 1
            options.name = f"{cls.__name__}#{number}"
        tessera = next(self._runtime.uids)
        stream = Stream(tessera, options.name)
        self.streams[tessera] = stream
        frame = sys._getframe(depth)
        call = Call(
            next(self._runtime.uids),
            stream,
            "__init__",
            frame.f_code,
            frame.f_lasti,
            time.time(),
        )
        call.hold = DROPPED  # it has no proxy: its owner may forget it when it ends
        task = CURRENT.get()
        extra = None
        if task is not None:
            call.inside = task.within()
            if self._runtime.made_inside:
                self._runtime.count_inside(call.root)
        place: Callable[..., None] = self.place
        if where is self._runtime:
            options.supervised = None  # it ends with who would build it again
        if options.supervised is None:
            handle = TesseraHandle(self._runtime, tessera, stream, call, None)
        else:
            handle = self._runtime.restarts.new_handle(stream, call, options)
            place = self._runtime.restarts.homes.place
        if options.unique:
            kind = f"{cls.__module__}.{cls.__qualname__}"
            place = functools.partial(self._claim, kind, place)
        if self._runtime.on_loop:
            self._runtime.catch_up()
            place(handle, class_data, payload, options, where, extra)
        else:
            self._runtime.post(
                place, handle, class_data, payload, options, where, extra
            )
        return handle

    def _claim(
        self,
        kind: str,
        place: Callable[..., None],
        handle: TesseraHandle,
        class_data: Any,
        payload: Any,
        options: wire.Options,
        where: Any,
        extra: wire.Extra | None,
    ) -> None:
        """Make it only if nobody has its name.

        Args:
            kind: module and qualified name of its class.
            place: does so.
        """
        restarts = options.supervised is not None
        message = wire.Claim(
            options.unique, kind, handle.uid, options.detached, restarts
        )
        self._runtime.names.claim(
            handle,
            message,
            extra,
            lambda: place(handle, class_data, payload, options, where, extra),
        )

    def place(
        self,
        handle: TesseraHandle,
        class_data: Any,
        payload: Any,
        options: wire.Options,
        where: Any,
        extra: wire.Extra | None,
        placed: Callable[[Stream, Peer, wire.Options], None] | None = None,
    ) -> None:
        """Send its construction, now or when there is a worker for it.

        Args:
            handle: of what is to be made.
            class_data, payload: its class and the arguments, pickled.
            options: how it runs.
            where: as for ``create``.
            extra: of the construction.
            placed: called instead of ``CallerState.placed`` when its place is known.
        """
        call = handle.call
        assert call is not None  # it was made here

        def try_now() -> bool:
            cause = self._no_place(where, handle.stream.label)
            if cause is not None:
                # Known by the owner that it would have had, so that calls which
                # mention it go out, and fail as they do for a lost one.
                stream = handle.stream
                stream.owner = stream.owner or self._owner_in(where)
                self._runtime.caller.calls[call.uid] = call
                call.hold = RELEASED
                self._runtime.caller.stream_failed(stream, cause)
                self._runtime.caller.lose(call, cause)
                if options.unique:
                    self._runtime.names.not_made(handle.uid)
                return True
            outbox = self._choose(where)
            if outbox is None:
                return False
            if type(payload) is not bytes and not all(h.owner for h in payload.handles):
                return False
            stream = handle.stream
            if placed is None:
                self._runtime.caller.placed(stream, outbox)
            else:
                placed(stream, outbox, options)
            self._made[outbox.incarnation] = self._made.get(outbox.incarnation, 0) + 1
            cls = class_data
            if type(cls) is not bytes:
                self._runtime.before(outbox, None, cls)
                cls = cls.data
            self._runtime.caller.create(call, cls, payload, options, extra)
            self._runtime.caller.held.release(stream)
            return True

        if self._unplaced or not try_now():
            self._unplaced.append(try_now)
            self.place_waiting()

    def _no_place(self, where: Any, name: str) -> Any:
        """Why nothing can be made there; None if it can, now or later."""
        if where is self._runtime:
            return None
        if self._runtime.cluster_lost:
            return no_cluster(self._runtime.cluster_lost)
        if where is None:
            return None
        at = where.owner if isinstance(where, Stream) else where.incarnation
        refusal = self._runtime.leavers.refusal(at, name)
        if refusal is not None:
            return refusal
        if isinstance(where, Stream):
            return where.error
        return self._runtime.causes.get(at)

    def _owner_in(self, where: Any) -> int:
        if where is None:
            return ids.MONITOR_INCARNATION
        owner: int = where.owner if isinstance(where, Stream) else where.incarnation
        return owner

    def _choose(self, where: Any) -> Peer | None:
        if where is self._runtime:
            return self._runtime.outbox(self._runtime.incarnation)  # type: ignore[no-any-return]  # a runtime always has one for itself
        if isinstance(where, Stream):  # of a tessera: beside it
            return self._runtime.outbox(where.owner)
        if where is not None:
            return self._runtime.outbox(where.incarnation)
        workers = self._runtime.leavers.open(self._runtime.of_kind("worker"))
        if not workers:
            return None
        return self._runtime.outbox(
            self._strategy.choose(workers, self.load_at).incarnation
        )

    def later(self, attempt: Callable[[], bool]) -> None:
        """Try this whenever somebody has joined, until it says that it is done."""
        self._unplaced.append(attempt)

    def any_held(self) -> bool:
        """Some call of this runtime has not been sent yet."""
        return any(stream.held for stream in self._all())

    def streams_to(self, owner: int) -> list[Stream]:
        """All that lead to a runtime."""
        return [stream for stream in self._all() if stream.owner == owner]

    def _all(self) -> list[Stream]:
        return [
            *self.streams.values(),
            *self._foreign.values(),
            *self._runtime.storing.streams(),
        ]

    def load_at(self, incarnation: int) -> int:
        """Tesserae that this runtime has made there."""
        return self._made.get(incarnation, 0)

    def try_waiting(self) -> None:
        """Tasks may have got their places: try again what waits for one."""
        if self._unplaced:
            self.place_waiting()

    def place_waiting(self) -> None:
        """Somebody has joined, or nobody will: try again."""
        for _ in range(len(self._unplaced)):
            attempt = self._unplaced.popleft()
            if not attempt():
                self._unplaced.append(attempt)
        # Calls that mention what has its place now.
        for stream in self._all():
            if stream.held:
                self._runtime.caller.held.release(stream)
        self._runtime.caller.held.feed()

    def met(self, uid: int, owner: int, label: str) -> Stream:
        """To call a tessera that somebody else made, or that was met before."""
        # Asked on the thread that unpickles, too: two streams would number twice.
        with self._meeting:
            stream = self.streams.get(uid)
            if stream is None:
                stream = self.streams[uid] = Stream(uid, label)
                self._aim(stream, owner)
            return stream

    def become(self, stream: Stream, uid: int, owner: int) -> Stream:
        """The stream to a tessera that was found under its name.

        Args:
            stream: to the one that was to be made; it leads there from now on, unless
                that one was met before.
        """
        with self._meeting:
            self.streams.pop(stream.tessera, None)
            found = self.streams.get(uid)
            if found is None:
                stream.tessera = uid
                found = self.streams[uid] = stream
                self._aim(stream, owner)
            return found

    def _aim(self, stream: Stream, owner: int) -> None:
        outbox = self._runtime.outbox(owner)
        if outbox is not None:
            self._runtime.caller.placed(stream, outbox)
            return
        stream.owner = owner
        if self._runtime.is_lost(owner):
            stream.error = self._runtime.causes.get(owner, (None, "it is gone"))
        else:
            self._unplaced.append(lambda: self._aim_later(stream, owner))

    def _aim_later(self, stream: Stream, owner: int) -> bool:
        """The owner was not announced when a reference to it came."""
        outbox = self._runtime.outbox(owner)
        if outbox is not None:
            self._runtime.caller.placed(stream, outbox)
            self._runtime.caller.held.release(stream)
        return outbox is not None or self._runtime.is_lost(owner)

    def foreign(self, owner: int) -> Stream:
        """To ask a runtime for tasks that others made."""
        stream = self._foreign.get(owner)
        if stream is None:
            stream = self._foreign[owner] = Stream(0, FOREIGN)
        if stream.outbox is None and stream.error is None:
            self._aim(stream, owner)
        return stream
