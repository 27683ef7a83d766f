"""Tesserae with restarts in one runtime: where they are, for all that has a proxy.

What is decided, by whom, and who is told stands in ``core.restarts``. Here messages are
taken, handles are made, and streams lead to the life there is; what becomes of calls is
in ``following``, and what the maker does in ``homes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never
from weakref import WeakValueDictionary

from .. import ids
from ..comms import messages as wire
from ..comms.exceptions import dump_error
from ..core.call import Stream
from ..core.completion import BuiltAgain
from ..core.references import Grant
from ..core.restarts import Follower, Step
from ..core.tessera import TesseraState
from ..core.verdicts import Remains, encode, of_leaver
from ..errors import ProtocolError, RuntimeDisconnectedError, Verdict
from ..proxies.handles import SupervisedHandle
from ..proxies.limits import limits_of
from ..proxies.monitoring import TesseraChange
from ..text import printable
from .failures import no_cluster
from .following import Following
from .homes import Homes
from .kept import Followed

if TYPE_CHECKING:
    from ..comms.messages import Member
    from ..core.call import Call
    from ..core.tessera import Tessera
    from ..proxies.monitoring import Monitor
    from .actor import ActorRuntime


class Restarts:
    """All of them; on the loop's thread, but for what says so."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._following = Following(runtime)
        self.seeking = self._following.seeking
        self.homes = Homes(runtime, self._following, self._take)
        self._followed: WeakValueDictionary[int, Followed] = WeakValueDictionary()
        # Of the lives here that their home ends, by their own uid: whether they are
        # built again.
        self.retired: dict[int, bool] = {}
        self.untold = False  # callers hear from homes alone how some calls here ended

    def joined(self) -> None:
        """The runtime is a member: messages may come."""
        self._runtime.handlers.update(
            {
                wire.Find: self.homes.on_find,
                wire.Moved: self._on_moved,
                wire.Ended: self._on_ended,
                wire.Retired: self._on_retired,
                wire.Closed: self.homes.on_closed,
                wire.Retire: self._on_retire,
            }
        )
        self.seeking.joined()

    # -- handles -----------------------------------------------------------------------

    def new_handle(
        self, stream: Stream, call: Call, options: wire.Options
    ) -> SupervisedHandle:
        """For the proxy of what is about to be made; from any thread.

        Args:
            stream: to its first life.
            call: of the construction.
            options: of the same; its own uid is filled in.
        """
        runtime = self._runtime
        supervised = options.supervised
        assert supervised is not None, "asked for"
        supervised.uid = next(runtime.uids)
        policy = supervised.idempotent, options.max_retries, options.retry
        follower = Follower(runtime.is_lost)
        followed = Followed(supervised.uid, stream, follower, policy)
        if options.unique:  # there may be one of this name
            return self._handle(followed, call, None)
        return self._handle(followed, call, self._made(supervised.uid))

    def _made(self, uid: int) -> Grant:
        return self._runtime.grants.made(uid, self._runtime.incarnation)

    def made(self, handle: SupervisedHandle) -> None:
        """The name was free: what the handle is of is made here."""
        handle.grant = self._made(handle.uid)

    def become(self, handle: SupervisedHandle, uid: int, grant: Grant) -> Stream:
        """There was one of this name: the handle is of that from now on.

        Returns:
            The stream to it.
        """
        runtime, followed, stream = self._runtime, handle.followed, handle.stream
        with self._following.meeting:
            del self._followed[followed.uid]
            runtime.placing.streams.pop(stream.tessera, None)
            found = self._followed.get(uid)
            if found is None:
                followed.uid = uid
                stream.tessera = 0  # no life of it is known yet
            else:
                followed.handles.discard(handle)
                for monitor in followed.monitors:
                    self.watch(found, monitor)
                handle.followed, handle.stream = found, found.stream
                found.handles.add(handle)
            self._followed[uid] = handle.followed
            handle.uid, handle.grant = uid, grant
        if found is None:
            self._find(followed)
        return handle.stream

    def _handle(
        self, followed: Followed, call: Call | None, grant: Grant | None
    ) -> SupervisedHandle:
        with self._following.meeting:
            handle = SupervisedHandle(self._runtime, followed, call, grant)
            self._followed[followed.uid] = followed
            followed.handles.add(handle)
        return handle

    # -- losses ------------------------------------------------------------------------

    def leaving(self, incarnation: int) -> None:
        """A runtime will leave in order: calls from now on go to the next life."""
        for followed in list(self._followed.values()):
            if followed.follower.owner == incarnation:
                self._following.pause(followed)

    def lost(self, member: Member, cause: str) -> None:
        """A runtime is lost; before its calls and streams are."""
        runtime = self._runtime
        incarnation = member.incarnation
        if runtime.cluster_lost:
            self._lost_all(incarnation)
            return
        for followed in list(self._followed.values()):
            steps = followed.follower.lost(incarnation)
            self._take(followed, steps, (member, cause))
            if ids.maker(followed.uid) == incarnation:
                orphaned = self._orphaned(member, cause)
                steps = followed.follower.ended(orphaned, closed=True)
                self._take(followed, steps, owner=incarnation)
        self.homes.lost(member, cause)
        self.seeking.lost(incarnation, (member, cause))

    def _lost_all(self, incarnation: int) -> None:
        """Nothing is built again, so what waits for the word of the lost one ends.

        What has a place is lost as any tessera is.
        """
        runtime = self._runtime
        error = dump_error(no_cluster(runtime.cluster_lost), runtime.serializer)
        for followed in list(self._followed.values()):
            follower = followed.follower
            waits = not follower.owner or follower.is_leaving
            if ids.maker(followed.uid) == incarnation and waits:
                self._take(followed, follower.ended(error), owner=incarnation)
        self.seeking.lost(incarnation, no_cluster(runtime.cluster_lost))

    def _orphaned(self, member: Member, cause: str) -> bytes:
        error = RuntimeDisconnectedError(
            f"{ids.short(member.uid)} ({member.host}, pid {member.pid}), which made "
            "this tessera and built it again, is lost, and the tessera with it: "
            f"{cause}; make it again",
            member.uid,
            Verdict.NOT_STARTED,
            cause,
        )
        return dump_error(error, self._runtime.serializer)

    # -- following ---------------------------------------------------------------------

    def met(
        self,
        grant: Grant,
        label: str,
        options: dict[str, Any] | None,
        policy: tuple[bool, int, bytes],
    ) -> SupervisedHandle:
        """A handle for a reference that has come; on the thread that unpickles."""
        with self._following.meeting:
            followed = self._followed.get(grant.uid)
            is_new = followed is None
            if followed is None:
                stream = Stream(0, label)
                stream.options = options
                follower = Follower(self._runtime.is_lost)
                followed = Followed(grant.uid, stream, follower, policy)
                self._followed[grant.uid] = followed
        handle = self._handle(followed, None, grant)
        if is_new and self._runtime.on_loop:
            self._find(followed)
        elif is_new:
            self._runtime.post(self._find, followed)
        return handle

    def current(self, tessera: Tessera) -> SupervisedHandle:
        """For a method that wants a proxy of its own object; on any thread."""
        runtime = self._runtime
        supervised = tessera.options.supervised
        assert supervised is not None, "asked for"
        uid, home, me = supervised.uid, ids.maker(supervised.uid), runtime.incarnation

        def retain() -> None:
            outbox = runtime.outbox(home)
            if home == me:
                runtime.worker.holders.grant(uid, me, me)
            elif outbox is not None:
                outbox.send(wire.Retain(uid, me))

        if runtime.on_loop:
            retain()
        else:
            runtime.post(retain)
        options = tessera.options
        policy = supervised.idempotent, options.max_retries, options.retry
        grant = Grant(uid, home, me, runtime.grants)
        return self.met(grant, options.name, limits_of(options), policy)

    def _find(self, followed: Followed) -> None:
        runtime = self._runtime
        home = ids.maker(followed.uid)
        runtime.placing.streams[followed.uid] = followed.stream
        outbox = runtime.outbox(home)
        if outbox is not None:
            outbox.send(wire.Find(followed.uid))
        elif not runtime.is_lost(home):
            runtime.peers.expect(home, wire.Find(followed.uid))
        else:
            lost = runtime.causes.get(home, (runtime.me, "it is gone"))
            steps = followed.follower.ended(self._orphaned(*lost))
            self._take(followed, steps, owner=home)

    def _on_moved(self, message: wire.Moved, buffers: Any, sender: int) -> None:
        if sender != ids.maker(message.uid) or sender != ids.maker(message.tessera):
            raise ProtocolError("it moves what another has made")
        followed = self._followed.get(message.uid)
        if followed is not None:
            self._take(followed, followed.follower.moved(message))

    def _on_ended(self, message: wire.Ended, buffers: Any, sender: int) -> None:
        if sender != ids.maker(message.uid):
            raise ProtocolError("it ends what another has made")
        followed = self._followed.get(message.uid)
        if followed is not None:
            steps = followed.follower.ended(message.error, message.closed)
            self._take(followed, steps, owner=sender)

    def _on_retired(self, message: wire.Retired, buffers: Any, sender: int) -> None:
        if sender != ids.maker(message.uid):
            raise ProtocolError("it ends what another has made")
        followed = self._followed.get(message.uid)
        if followed is not None:
            steps = followed.follower.retired(message.life, over=message.over)
            why = printable(message.why)
            self._take(followed, steps, why=why, remains=message.remains)

    def _take(
        self,
        followed: Followed,
        steps: list[Step],
        cause: tuple[Member, str] | None = None,
        owner: int = 0,
        why: str = "",
        remains: bytes = b"",
    ) -> None:
        """Take the steps of a follower.

        Args:
            followed: whose.
            steps: in order.
            cause: of a DETACH.
            owner: of the last life, for an END.
            why: for a LEAVE.
            remains: for a LEFT: which calls had started.
        """
        for step in steps:
            match step:
                case Step.DETACH:
                    assert cause is not None, "it is told with the loss"
                    was_told = bool(followed.ending)
                    self._following.detach(followed, cause)
                    owner = cause[0].incarnation
                    if not was_told:
                        self._tell(followed, TesseraChange.DOWN, *cause)
                case Step.LEAVE:
                    at = self._at(followed)
                    self._following.leave(followed, at, why)
                    self._tell(followed, TesseraChange.DOWN, at, why)
                case Step.LEFT:
                    self._following.left(followed, remains)
                case Step.PLACE:
                    self._aim(followed)
                case Step.UP:
                    self._following.forget_ended(followed)
                    change = TesseraChange.UP
                    if followed.follower.life:
                        change = TesseraChange.RESTARTED
                    self._tell(followed, change, self._at(followed), "")
                case Step.END:
                    error = followed.follower.error or b""
                    self._following.end(followed, error, owner)
                    self._over(followed)
                case Step.OVER:
                    self._over(followed)
                case _:
                    assert_never(step)

    def _over(self, followed: Followed) -> None:
        for monitor in list(followed.monitors):
            monitor.end()
        followed.monitors.clear()

    def _aim(self, followed: Followed) -> None:
        """The next life has its place; perhaps who is there is not announced yet."""
        runtime, stream = self._runtime, followed.stream
        owner = followed.follower.owner

        def aim() -> bool:
            if followed.stream is not stream:
                return True
            peer = runtime.outbox(owner)
            if peer is not None:
                self._following.place(followed, stream, peer)
                runtime.caller.held.release(stream)
            return peer is not None

        if owner in runtime.leavers.leaving:
            return  # it is about to move
        stream.tessera = followed.follower.tessera
        if runtime.executor.main.stack:
            runtime.wake_main()  # a method that waits may need what was put off before
        if not aim():
            runtime.placing.later(aim)
        runtime.placing.place_waiting()

    # -- where it lives ----------------------------------------------------------------

    def gone(self, tessera: Tessera) -> None:
        """It was closed here, or could not be built."""
        supervised = tessera.options.supervised
        assert supervised is not None, "asked for"
        departing = self._runtime.departing
        moves = departing is not None and departing.state.closing
        # One that is retired moves for another reason, of which its home waits to hear.
        if not moves or self.retired.get(tessera.uid):
            outbox = self._runtime.outbox(ids.maker(supervised.uid))
            if outbox is not None:
                why = str(tessera.error) if isinstance(tessera.error, str) else ""
                remains = b""
                if self.retired.get(tessera.uid):
                    remains = self._remains(tessera)
                closed = wire.Closed(supervised.uid, supervised.life, why, remains)
                outbox.send(closed)

    def _remains(self, tessera: Tessera) -> bytes:
        """Of a life that has ended here: which calls had started."""
        remains = of_leaver(self._runtime.executor.journal.remains())
        is_built = tessera.state is not TesseraState.FAILED
        marks = [m for m in remains.marks if is_built and m.tessera == tessera.uid]
        return encode(Remains(marks, complete=remains.complete))

    def _on_retire(self, message: wire.Retire, buffers: Any, sender: int) -> None:
        if sender != ids.maker(message.tessera):
            raise ProtocolError("it ends what another has made")
        lifecycle = self._runtime.worker.lifecycle
        if message.tessera in self._runtime.worker.tesserae:
            self.retired[message.tessera] = message.again
            why = printable(message.why)
            lifecycle.end(message.tessera, BuiltAgain(why) if message.again else why)

    # -- monitors ----------------------------------------------------------------------

    def watch(self, followed: Followed, monitor: Monitor) -> None:
        """Somebody wants to hear of its changes."""
        if followed.follower.is_up:
            at = self._at(followed).uid
            monitor.put(TesseraChange.UP, at, "", self._life(followed))
        if followed.follower.error is not None:
            monitor.end()
        else:
            followed.monitors.add(monitor)

    def _at(self, followed: Followed) -> Member:
        return self._member(followed.follower.owner)

    def _member(self, incarnation: int) -> Member:
        return self._runtime.members.get(incarnation, self._runtime.me)

    def _life(self, followed: Followed) -> int:
        return max(followed.follower.life, 0)

    def _tell(
        self, followed: Followed, change: TesseraChange, member: Member, cause: str
    ) -> None:
        for monitor in list(followed.monitors):
            monitor.put(change, member.uid, cause, self._life(followed))
