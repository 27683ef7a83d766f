"""Tesserae with restarts that are built again together, at the home of them all.

Who goes with whom, and in which order, is decided in ``core.groups``. Here lives are
told to end, it is awaited that they have, and the groups change when a member does. One
life after the other is made by ``homes``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .. import ids
from ..core.groups import Group, Orders, Restart
from ..core.restarts import HomeState, Intensity

if TYPE_CHECKING:
    from ..comms.messages import Member
    from .actor import ActorRuntime
    from .homes import Homes
    from .made import Made

logger = logging.getLogger(__name__)

_RETIRED_S = 15.0  # that a life may take to end: its __close__ has 10 s


class Supervising:
    """All groups of one home; on the loop's thread."""

    def __init__(self, runtime: ActorRuntime, homes: Homes) -> None:
        self._runtime = runtime
        self._homes = homes

    def supervise(self, uids: list[int], restart: Restart, often: Intensity) -> None:
        """Build these again together.

        Args:
            uids: of tesserae that were made here.
            restart: who goes with one that is lost.
            often: how often.

        Raises:
            ValueError: one is in a group already.
        """
        mades = [self._homes.made[uid] for uid in uids if uid in self._homes.made]
        for made in mades:
            if made.group is not None:
                label = made.followed.stream.label
                raise ValueError(f"supervise(): {label} is supervised with others")
        group = Group((made.home.uid for made in mades), restart, often)
        for made in mades:
            made.group = group
        for made in mades:
            if made.home.state is HomeState.ENDED:
                self._homes.closed_or_failed(made)

    def lost(self, group: Group, uids: set[int], member: Member, cause: str) -> None:
        """Members that were in a lost runtime, and have restarts left."""
        mades = [self._homes.made[uid] for uid in uids]
        orders = group.lost(uids, self._runtime.loop.time())
        labels = ", ".join(made.followed.stream.label for made in mades)
        if orders is not None:
            where = f"{ids.short(member.uid)} ({member.host}, pid {member.pid})"
            self._obey(orders, f"{labels}, which {where} had: it is lost: {cause}")
            return
        for made in mades[1:]:
            group.left(made.home.uid)
            made.group = None
        for made in mades:  # the first one takes with it all that are not lost
            error = made.exhausted(member, cause, group.intensity)
            self._homes.end_lost(made, error, member)

    def built(self, made: Made) -> None:
        """A constructor has returned."""
        if made.group is not None:
            self._obey(made.group.built(made.home.uid))

    def _obey(self, orders: Orders, with_what: str = "") -> None:
        """Do what a group orders."""
        for uid in orders.end:
            self._retire(self._homes.made[uid], f"it is built again with {with_what}")
        for uid in orders.build:
            self._homes.build(self._homes.made[uid])

    def _retire(self, made: Made, why: str) -> None:
        """End the life there is, so that another can be made."""
        runtime, home = self._runtime, made.home
        assert made.group is not None, "which orders it"
        if home.state is HomeState.WAITING:  # it was about to be built
            if made.timer is not None:
                made.timer.cancel()
                made.asked = False
            self._obey(made.group.ended(home.uid))
            return
        life = home.life
        self._homes.send(home.retire(why))
        self._homes.take(made.followed, made.followed.follower.retired(life), why=why)
        made.delay_s = 0.0
        made.host = runtime.members[home.retiring].host
        self._homes.next_handle(made)
        made.timer = runtime.loop.call_later(
            _RETIRED_S, self._still_there, made, life, context=runtime.context
        )

    def _still_there(self, made: Made, life: int) -> None:
        """A method that cannot be interrupted: the others do not wait for ever."""
        if made.home.state is HomeState.RETIRING and made.home.life == life:
            logger.warning(
                "%s was to end %g s ago, to be built again with others, and runs on "
                "%s; it is built again all the same",
                made.followed.stream.label,
                _RETIRED_S,
                ids.short(self._runtime.uid_of(made.home.retiring)),
            )
            self.retired(made, b"")

    def retired(self, made: Made, remains: bytes | None) -> None:
        """A life that was told to end has ended.

        Args:
            made: whose.
            remains: what had started there; None: it is lost, as all have heard.
        """
        if made.timer is not None:
            made.timer.cancel()
        life = made.home.life
        self._homes.send(made.home.retired(remains))
        if remains is not None:
            steps = made.followed.follower.retired(life, over=True)
            self._homes.take(made.followed, steps, remains=remains)
        assert made.group is not None, "why it was retired"
        self._obey(made.group.ended(made.home.uid))

    def leave(self, made: Made) -> None:
        """It is closed: the others go on."""
        group, made.group = made.group, None
        if group is not None:
            self._obey(group.left(made.home.uid))

    def end_others(self, made: Made) -> None:
        """It is not built again, and none of the others is of use without it."""
        group, made.group = made.group, None
        if group is None:
            return
        others = [uid for uid in group.members if uid != made.home.uid]
        for uid in others:
            self._homes.made[uid].group = None
        label = made.followed.stream.label
        for uid in others:
            self._homes.end(
                uid, f"it was supervised with {label}, which has ended: {made.why}"
            )
