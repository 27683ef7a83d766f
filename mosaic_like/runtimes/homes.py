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
from ..comms.exceptions import dump_error, error_summary
from ..core.bonds import Fate, Known
from ..core.call import DROPPED, Call, Stream, rare
from ..core.restarts import Home, HomeState, Sends, Step
from ..core.task import DONE
from ..errors import ProtocolError
from ..proxies.handles import SupervisedHandle, TesseraHandle
from ..text import printable
from .checkpoint_files import CheckpointFiles
from .made import Made
from .supervising import Supervising

if TYPE_CHECKING:
    from ..comms.messages import Member
    from ..core.groups import Group
    from .actor import ActorRuntime
    from .following import Following
    from .kept import Followed
    from .peer import Peer

logger = logging.getLogger(__name__)


class Take(Protocol):
    """Takes the steps of a follower.

    Args:
        owner: of its last life, for an END.
        why: for a LEAVE.
        remains: for a LEFT.
    """

    def __call__(
        self,
        followed: Followed,
        steps: list[Step],
        *,
        owner: int = 0,
        why: str = "",
        remains: bytes = b"",
    ) -> None: ...


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
        self.take = take
        self.supervising = Supervising(runtime, self)
        self.made: dict[int, Made] = {}  # by uid

    def place(
        self,
        handle: SupervisedHandle,
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
        stream = handle.stream
        inner = TesseraHandle(runtime, stream.tessera, stream, handle.call, None)
        home = Home(supervised.uid, supervised.most, supervised.within_s)
        made = Made(home, handle.followed, inner, (cls, payload, options))
        self.made[home.uid] = made
        made.asked = True
        runtime.worker.kept[home.uid] = made
        runtime.worker.kept_freed = self._freed
        runtime.worker.holders.add(home.uid)
        if options.unique:
            runtime.names.owned(options.unique, home.uid)
        self._make(made, inner, where, extra)

    def shares(self, uid: int, holder: int) -> bool | None:
        """Let another runtime hold one; whether it is built, None: it has ended."""
        made = self.made.get(uid)
        if made is None or made.home.state is HomeState.ENDED:
            return None
        runtime = self._runtime
        runtime.worker.holders.grant(uid, holder, runtime.incarnation)
        return made.home.state is HomeState.UP

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
        made = self.made.get(options.supervised.uid)
        if made is None or made.recipe is None:  # nobody has waited for it
            self._runtime.caller.placed(stream, peer)
            return
        made.asked = False
        sends = made.home.placed(stream.tessera, peer.incarnation)
        self._following.place(made.followed, stream, peer)
        made.followed.follower.moved(_place_of(made.home, built=False))
        self.send(sends)

    def _constructed(self, made: Made, call: Call) -> None:
        if made.inner is None or made.inner.call is not call:
            return
        if call.state != DONE:
            # Every call on it says it again; see Dropping._drop_handle.
            rare(call).unheard = True
            if left := self._left(made):
                label = made.followed.stream.label
                logger.warning("%s could not be built again%s", label, left)
            self._end(made, call.result, why=error_summary(call.result))
        elif made.home.state is HomeState.STARTING:
            self.send(made.home.built())
            steps = made.followed.follower.moved(_place_of(made.home, built=True))
            self.take(made.followed, steps)
            self.supervising.built(made)

    def _freed(self, uid: int) -> None:
        """Nobody holds it any more: the home lets go of the life there is."""
        made = self._runtime.worker.kept.pop(uid)
        self.made.pop(uid, None)
        made.home.end(b"")
        self.supervising.leave(made)
        made.end()
        made.inner = None
        self._runtime.names.ended(uid)
        self._runtime.linking.closed(uid)

    def lost(self, member: Member, cause: str) -> None:
        """A runtime is lost; this one has taken back its calls."""
        incarnation = member.incarnation
        down: dict[Group, set[int]] = {}
        for made in list(self.made.values()):
            home = made.home
            home.forget(incarnation)
            if home.state is HomeState.ENDED:
                continue
            if home.retiring == incarnation:
                self.supervising.retired(made, None)
            elif home.owner == incarnation and self._lost_life(made, member, cause):
                if made.group is None or incarnation in self._runtime.leavers.left:
                    self.build(made)
                else:
                    down.setdefault(made.group, set()).add(home.uid)
        for group, uids in down.items():
            # Those that have no restarts left have ended their whole group.
            still = {uid for uid in uids if self.made[uid].group is group}
            if still:
                self.supervising.lost(group, still, member, cause)

    def _lost_life(self, made: Made, member: Member, cause: str) -> bool:
        """Whether another life is to follow."""
        runtime = self._runtime
        home = made.home
        left = member.incarnation in runtime.leavers.left
        delay_s = home.lost(runtime.loop.time(), counts=not left)
        if delay_s is None or runtime.stopping:
            self.end_lost(made, made.exhausted(member, cause), member)
            return False
        made.host = member.host
        made.delay_s = delay_s
        self.next_handle(made)
        logger.info(
            "%s is built again after the loss of %s (%s): restart %d of %d",
            made.followed.stream.label,
            ids.short(member.uid),
            cause,
            home.life,
            home.intensity.most,
        )
        return True

    def end_lost(self, made: Made, exhausted: BaseException, member: Member) -> None:
        """It was lost with this runtime, and is not built again."""
        assert made.inner is not None, "until it is freed"
        why = str(exhausted)
        exhausted.args = (why + self._left(made), *exhausted.args[1:])
        error = dump_error(exhausted, self._runtime.serializer)
        call = self._construction_after(made.inner, made.followed.stream)
        self._end(made, error, member.incarnation, why=why)
        if call.state < DONE:
            self._runtime.caller.lose(call, error)

    def next_handle(self, made: Made) -> None:
        """The life there was is let go; what is made next has a number of its own."""
        runtime, old, stream = self._runtime, made.inner, made.followed.stream
        assert old is not None, "until it is freed"
        call = self._construction_after(old, stream)
        stream.tessera = next(runtime.uids)
        made.inner = TesseraHandle(runtime, stream.tessera, stream, call, None)

    def build(self, made: Made) -> None:
        """Make the next life, after its delay."""
        if made.asked:
            return  # it waits for a worker already
        made.asked = True
        made.timer = self._runtime.loop.call_later(
            made.delay_s, self._again, made, context=self._runtime.context
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

    # -- ends --------------------------------------------------------------------------

    def known(self, uid: int) -> Known | None:
        """What has become of one; None: it was not made here, or is gone."""
        made = self.made.get(uid)
        if made is None:
            return None
        label = made.followed.stream.label
        if made.home.state is not HomeState.ENDED:
            return Known(Fate.HERE, label)
        return Known(Fate.FAILED if made.why else Fate.CLOSED, label, made.why)

    def end(self, uid: int, why: str) -> None:
        """End one, whatever it does, for what has happened elsewhere."""
        made = self.made.get(uid)
        if made is None or made.home.state is HomeState.ENDED:
            return
        home, label = made.home, made.followed.stream.label
        text = f"{label}: {why}{self._left(made)}"
        error = dump_error(LookupError(text), self._runtime.serializer)
        call = None if made.inner is None else made.inner.call
        if home.owner:
            self.send([(home.owner, wire.Retire(home.tessera, why))])
        elif call is not None:
            self._runtime.caller.lose(call, error)
        self._end(made, error, why=why)

    def _end(self, made: Made, error: bytes, last: int = 0, *, why: str = "") -> None:
        """It has no further life; ``why``: not in order."""
        home, linking = made.home, self._runtime.linking
        if home.state is HomeState.ENDED:
            return
        made.end()
        made.why = why
        closed = bool(home.owner)
        self.send(home.end(error))
        self._runtime.names.ended(home.uid)
        steps = made.followed.follower.ended(error, closed)
        self.take(made.followed, steps, owner=last or self._runtime.incarnation)
        if why:
            linking.failed(home.uid, made.followed.stream.label, why)
        else:
            linking.closed(home.uid)
        self.closed_or_failed(made)

    def closed_or_failed(self, made: Made) -> None:
        """It has ended: so do those that are built again with it, or not."""
        if made.why:
            self.supervising.end_others(made)
        else:
            self.supervising.leave(made)

    def _left(self, made: Made) -> str:
        """Where its last checkpoint stays, for the end of a text; or nothing."""
        base = self._runtime.config.checkpoint_directory
        monitor = self._runtime.members.get(ids.MONITOR_INCARNATION)
        if base is None or monitor is None:
            return ""
        path = CheckpointFiles(base, monitor.token).kept(made.home.uid)
        if not path:  # or it is on another host, which does not share the directory
            return ""
        return f"; mosaic.read_checkpoint({path!r}) gives its last state"

    # -- what comes --------------------------------------------------------------------

    def on_find(self, message: wire.Find, buffers: Any, sender: int) -> None:
        if ids.maker(message.uid) != self._runtime.incarnation:
            raise ProtocolError("it seeks what was not made here")
        made = self.made.get(message.uid)
        if made is not None:
            self.send(made.home.find(sender))
            return
        error = LookupError("it is gone: nobody held it any more")
        gone = dump_error(error, self._runtime.serializer)
        self.send([(sender, wire.Ended(message.uid, gone))])

    def on_closed(self, message: wire.Closed, buffers: Any, sender: int) -> None:
        made = self.made.get(message.uid)
        if made is None or made.home.life != message.life:
            return
        if made.home.retiring == sender and made.home.state is HomeState.RETIRING:
            self.supervising.retired(made, message.remains)
        if made.home.owner != sender:
            return
        why = printable(message.why)
        self.supervising.leave(made)  # also where it was killed
        error = LookupError(f"{made.followed.stream.label}: {why or 'it was closed'}")
        self._end(made, dump_error(error, self._runtime.serializer), why=why)

    def send(self, sends: Sends) -> None:
        """To those who are not lost."""
        for to, message in sends:
            outbox = self._runtime.outbox(to)
            if outbox is not None:
                outbox.send(message)


def _place_of(home: Home, *, built: bool) -> wire.Moved:
    return wire.Moved(home.uid, home.life, home.tessera, home.owner, built)
