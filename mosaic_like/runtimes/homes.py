"""Tesserae with restarts that this runtime has made: it builds them again.

What is decided stands in ``core.restarts``. Here the lives are made, by ``placing`` and
after their delay, the followers are told, and it is seen when nobody holds one any
more. What this runtime itself does as a follower is in ``restarting``.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from .. import ids
from ..comms import messages as wire
from ..comms.exceptions import dump_error
from ..core.call import DROPPED, Call, Stream, rare
from ..core.restarts import Home, HomeState, Sends, Step
from ..core.task import DONE
from ..errors import ProtocolError, RuntimeDisconnectedError, Verdict, WorkerDied
from ..proxies.handles import TesseraHandle

if TYPE_CHECKING:
    import asyncio

    from ..comms.messages import Member
    from .actor import ActorRuntime
    from .following import Followed, Following
    from .peer import Peer

logger = logging.getLogger(__name__)


class Take(Protocol):
    """Takes the steps of a follower; ``owner``: of its last life, for an END."""

    def __call__(
        self, followed: Followed, steps: list[Step], *, owner: int = 0
    ) -> None: ...


class Made:
    """A tessera with restarts at its home; counted among what lives there.

    Args:
        home: decides.
        followed: the same as this runtime follows it.
        inner: the right of the home to the life there is.
        recipe: class and arguments, pickled, and options.
    """

    __slots__ = ("followed", "home", "host", "inner", "recipe", "shared", "timer")

    def __init__(
        self,
        home: Home,
        followed: Followed,
        inner: TesseraHandle,
        recipe: tuple[Any, Any, wire.Options],
    ) -> None:
        self.shared = False  # not its maker alone holds it: `holders` counts
        self.home = home
        self.followed = followed
        self.inner: TesseraHandle | None = inner
        self.recipe: tuple[Any, Any, wire.Options] | None = recipe
        self.timer: asyncio.TimerHandle | None = None
        self.host = ""  # of the life that was lost

    def end(self) -> None:
        """Nothing will be made of it any more."""
        self.recipe = None
        if self.timer is not None:
            self.timer.cancel()


class Homes:
    """See the module; on the loop's thread.

    Args:
        runtime: the home.
        following: what it does as a follower when a life has its place.
        take: what it does besides.
    """

    def __init__(self, runtime: ActorRuntime, following: Following, take: Take) -> None:
        self._runtime = runtime
        self._following = following
        self._take = take
        self._made: dict[int, Made] = {}  # by uid

    def place(
        self,
        followed: Followed,
        inner: TesseraHandle,
        cls: Any,
        payload: Any,
        options: wire.Options,
        where: Any,
        extra: wire.Extra | None,
    ) -> None:
        """Make the first life; the rest as for ``Placing.place``."""
        runtime = self._runtime
        supervised = options.supervised
        assert supervised is not None, "asked for"
        home = Home(supervised.uid, supervised.most, supervised.within_s)
        made = Made(home, followed, inner, (cls, payload, options))
        self._made[home.uid] = made
        runtime.worker.kept[home.uid] = made
        runtime.worker.kept_freed = self._freed
        runtime.worker.holders.add(home.uid)
        self._make(made, inner, where, extra)

    def _make(
        self, made: Made, inner: TesseraHandle, where: Any, extra: wire.Extra | None
    ) -> None:
        assert made.recipe is not None, "kept until it has ended"
        cls, payload, options = made.recipe
        assert options.supervised is not None, "asked for"
        life = msgspec.structs.replace(options.supervised, life=made.home.life)
        options = msgspec.structs.replace(options, supervised=life)
        call = inner.call
        assert call is not None, "it is the construction"
        self._runtime.watch(call, functools.partial(self._constructed, made, call))
        self._runtime.placing.place(
            inner, cls, payload, options, where, extra, self._placed
        )

    def _placed(self, stream: Stream, peer: Peer, options: wire.Options) -> None:
        """Its construction is about to be sent there."""
        assert options.supervised is not None, "asked for"
        made = self._made.get(options.supervised.uid)
        if made is None or made.recipe is None:  # nobody has waited for it
            self._runtime.caller.placed(stream, peer)
            return
        sends = made.home.placed(stream.tessera, peer.incarnation)
        self._following.place(made.followed, stream, peer)
        made.followed.follower.moved(_place_of(made.home, built=False))
        self._send(sends)

    def _constructed(self, made: Made, call: Call) -> None:
        if made.inner is None or made.inner.call is not call:
            return
        if call.state != DONE:
            # Every call on it says it again; see Dropping._drop_handle.
            rare(call).unheard = True
            self._end(made, call.result)
        elif made.home.state is HomeState.STARTING:
            self._send(made.home.built())
            steps = made.followed.follower.moved(_place_of(made.home, built=True))
            self._take(made.followed, steps)

    def _freed(self, uid: int) -> None:
        """Nobody holds it any more: the home lets go of the life there is."""
        made = self._runtime.worker.kept.pop(uid)
        self._made.pop(uid, None)
        made.home.end(b"")
        made.end()
        made.inner = None

    def lost(self, member: Member, cause: str) -> None:
        """A runtime is lost; this one has taken back its calls."""
        for made in list(self._made.values()):
            home = made.home
            home.forget(member.incarnation)
            if home.owner == member.incarnation and home.state is not HomeState.ENDED:
                self._lost_life(made, member, cause)

    def _lost_life(self, made: Made, member: Member, cause: str) -> None:
        runtime = self._runtime
        home, old = made.home, made.inner
        assert old is not None, "until it is freed"
        left = member.incarnation in runtime.leavers.left
        delay_s = home.lost(runtime.loop.time(), counts=not left)
        stream = made.followed.stream
        call = self._construction_after(old, stream)
        if delay_s is None or runtime.stopping:
            error = self._exhausted(made, member, cause)
            self._end(made, error, member.incarnation)
            if call.state < DONE:
                runtime.caller.lose(call, error)
            return
        made.host = member.host
        stream.tessera = next(runtime.uids)
        made.inner = TesseraHandle(runtime, stream.tessera, stream, call, None)
        logger.info(
            "%s is built again after the loss of %s (%s): restart %d of %d",
            stream.label,
            ids.short(member.uid),
            cause,
            home.life,
            home.most,
        )
        made.timer = runtime.loop.call_later(
            delay_s, self._again, made, context=runtime.context
        )

    def _construction_after(self, old: TesseraHandle, stream: Stream) -> Call:
        """The call that builds the next life: if the last was not built, the same."""
        runtime, call = self._runtime, old.call
        assert call is not None, "it was made here"
        if call.state >= DONE:
            again = Call(0, stream, call.method, call.code, call.instruction, 0.0)
            again.uid = next(runtime.uids)
            again.hold = DROPPED
            again.submitted_s = runtime.caller.now_s
            return again
        old.call = None
        runtime.caller.calls.pop(call.uid, None)
        call.uid = next(runtime.uids)
        call.stream = stream
        runtime.caller.calls[call.uid] = call  # a barrier waits for it
        return call

    def _again(self, made: Made) -> None:
        made.timer = None
        if made.recipe is not None and made.inner is not None:
            self._make(made, made.inner, self._near(made), None)
            self._runtime.placing.place_waiting()

    def _near(self, made: Made) -> Member | None:
        """A worker on the host that has its checkpoints; None: any will do."""
        runtime = self._runtime
        assert made.recipe is not None, "kept until it has ended"
        supervised = made.recipe[2].supervised
        assert supervised is not None, "asked for"
        is_kept = supervised.checkpoint_calls or supervised.checkpoint_s
        if not is_kept or runtime.config.checkpoint_directory is not None:
            return None
        workers = runtime.leavers.open(runtime.of_kind("worker"))
        near = [member for member in workers if member.host == made.host]
        return near[made.home.life % len(near)] if near else None

    def _end(self, made: Made, error: bytes, last: int = 0) -> None:
        """It has no further life."""
        made.end()
        closed = bool(made.home.owner)
        self._send(made.home.end(error))
        steps = made.followed.follower.ended(error, closed)
        self._take(made.followed, steps, owner=last or self._runtime.incarnation)

    def _exhausted(self, made: Made, member: Member, cause: str) -> bytes:
        home, label = made.home, made.followed.stream.label
        within = "" if home.within_s is None else f" within {home.within_s:g} s"
        kind = RuntimeDisconnectedError
        if member.uid.startswith("worker"):
            kind = WorkerDied
        times = "once" if home.most == 1 else f"{home.most} times"
        error = kind(
            f"{ids.short(member.uid)} ({member.host}, pid {member.pid}) is lost: "
            f"{cause}; {label} was built again {times}{within} and is not any more: "
            "see what ended its workers, then make it again, or give it more by "
            "max_restarts",
            member.uid,
            Verdict.NOT_STARTED,
            cause,
        )
        return dump_error(error, self._runtime.serializer)

    # -- what comes --------------------------------------------------------------------

    def on_find(self, message: wire.Find, buffers: Any, sender: int) -> None:
        if ids.maker(message.uid) != self._runtime.incarnation:
            raise ProtocolError("it seeks what was not made here")
        made = self._made.get(message.uid)
        if made is not None:
            self._send(made.home.find(sender))
            return
        error = LookupError("it is gone: nobody held it any more")
        gone = dump_error(error, self._runtime.serializer)
        self._send([(sender, wire.Ended(message.uid, gone))])

    def on_closed(self, message: wire.Closed, buffers: Any, sender: int) -> None:
        made = self._made.get(message.uid)
        if made is None or made.home.owner != sender or made.home.life != message.life:
            return
        error = LookupError(f"{made.followed.stream.label}: it was closed")
        self._end(made, dump_error(error, self._runtime.serializer))

    def _send(self, sends: Sends) -> None:
        for to, message in sends:
            outbox = self._runtime.outbox(to)
            if outbox is not None:
                outbox.send(message)


def _place_of(home: Home, *, built: bool) -> wire.Moved:
    return wire.Moved(home.uid, home.life, home.tessera, home.owner, built)
