"""One tessera with restarts at its home, which has made it.

What is done with it is in ``homes``; what is decided, in ``core.restarts``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ids
from ..errors import RuntimeDisconnectedError, Verdict, WorkerDied

if TYPE_CHECKING:
    import asyncio

    from ..comms import messages as wire
    from ..comms.messages import Member
    from ..core.groups import Group
    from ..core.restarts import Home, Intensity
    from ..proxies.handles import TesseraHandle
    from .kept import Followed


class Made:
    """A tessera with restarts at its home; counted among what lives there.

    Args:
        home: decides.
        followed: the same as this runtime follows it.
        inner: the right of the home to the life there is.
        recipe: class and arguments, pickled, and options.
    """

    __slots__ = (
        *("asked", "delay_s", "followed", "group", "home", "host", "inner", "recipe"),
        *("shared", "timer", "why"),
    )

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
        self.why = ""  # it has ended, but in order
        self.group: Group | None = None  # with which it is built again
        self.delay_s = 0.0  # before the next life
        self.asked = False  # for its construction, which has no place yet

    def end(self) -> None:
        """Nothing will be made of it any more."""
        self.recipe = None
        if self.timer is not None:
            self.timer.cancel()

    def exhausted(
        self, member: Member, cause: str, group: Intensity | None = None
    ) -> BaseException:
        """Why it is not built again; ``group``: how often all of it may be."""
        kind = RuntimeDisconnectedError
        if member.uid.startswith("worker"):
            kind = WorkerDied
        what, often = self.followed.stream.label, self.home.intensity
        if group is not None:
            what, often = f"{what}, with those that it is supervised with,", group
        again = f"was built again {often} and is not any more"
        if often.most == 0:
            again = "is not built again"
        return kind(
            f"{ids.short(member.uid)} ({member.host}, pid {member.pid}) is lost: "
            f"{cause}; {what} {again}: "
            "see what ended its workers, then make it again, or give it more by "
            "max_restarts",
            member.uid,
            Verdict.NOT_STARTED,
            cause,
        )
