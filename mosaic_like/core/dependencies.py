"""Which tasks of one runtime wait for which, and what follows when one ends.

Only tasks that may still be put together stand here: those that were prepared or sent
as function tasks, and what they wait for. The state answers with what is to be done, in
dependency order; who asks does it. A task goes from *prepare* to *pending* by
``submit``, with all that it needs; it is *sent* once nothing blocks it; how it ends
comes in by ``ended``. The moves are those of ``core.task``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import CycleError, InvalidTransitionError
from .task import (
    ABORT,
    ABORTED,
    CANCEL_EVENT,
    CANCELLED,
    DONE,
    ERROR_EVENT,
    FAILED,
    FINISH,
    PENDING,
    PREPARE,
    RETRY,
    STATES,
    SUBMIT_EVENT,
    UPSTREAM_EVENT,
    following,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

UPSTREAM = "upstream"
LOST = "lost"
_SHOWN = 12  # tasks of a path that an error names
# How a task ends of which a prerequisite has ended so.
_FOLLOWS = {FAILED: UPSTREAM_EVENT, CANCELLED: CANCEL_EVENT, ABORTED: ABORT}


class Send(NamedTuple):
    """Nothing blocks it any more."""

    uid: int


class Wait(NamedTuple):
    """It is pending, and something blocks it."""

    uid: int


class Settle(NamedTuple):
    """It has ended because of another, or was given up."""

    uid: int
    state: int
    because: int  # the prerequisite; 0: nothing but what was asked


class Rearm(NamedTuple):
    """It had ended and is pending again."""

    uid: int


class Stop(NamedTuple):
    """It was sent and was given up; its end still comes by ``ended``."""

    uid: int


Effect = Send | Wait | Settle | Rearm | Stop


class Member:
    """One task among those that wait for each other."""

    __slots__ = (
        *("aborting", "blocks", "label", "needs", "orders", "reason", "sent"),
        "state",
    )

    def __init__(self, label: str, state: int) -> None:
        self.label = label  # for people
        self.state = state
        self.sent = state != PREPARE
        self.reason: str | None = None
        self.aborting = False  # asked for when it could only be cancelled
        # What it waits for; True: however that ends.
        self.needs: dict[int, bool] = {}
        self.orders: set[int] = set()  # of these, those whose values it does not take
        self.blocks: dict[int, None] = {}

    def move(self, event: int, reason: str | None = None) -> None:
        self.state = following(self.state, event)
        self.reason = reason


class Dependencies:
    """All of one runtime; see the module."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}

    # -- putting together --------------------------------------------------------------

    def add(self, uid: int, label: str, state: int = PREPARE) -> Member:
        """A task that was made; in any other state than prepare it was sent already."""
        member = self.members[uid] = Member(label, state)
        return member

    def require(
        self, uid: int, other: int, any_end: bool = False, orders_only: bool = False
    ) -> list[Effect]:
        """Let one wait for another.

        Args:
            uid: the one that waits: prepared, or pending and still blocked.
            other: the one that it waits for; if that is only prepared and this one is
                pending, it is submitted.
            any_end: however that ends.
            orders_only: its value is not taken.

        Raises:
            InvalidTransitionError: it has been sent or has ended.
            CycleError: the other waits for it.
        """
        member = self.members[uid]
        if member.sent or member.state > PENDING:
            raise InvalidTransitionError(STATES[member.state], "require")
        if member.blocks or uid == other:  # else nothing leads back to it
            path = self._path(other, uid)
            if path:
                raise CycleError(self._circle(path))
        if not orders_only:
            member.orders.discard(other)
        elif other not in member.needs:
            member.orders.add(other)
        member.needs[other] = any_end and member.needs.get(other, True)
        self.members[other].blocks[uid] = None
        effects: list[Effect] = []
        if member.state == PENDING and self.members[other].state == PREPARE:
            effects = self.submit(other)
        return effects + self._cascade([uid])

    def know(self, uid: int, other: int, any_end: bool = False) -> list[Effect]:
        """One that was sent, and has perhaps ended, was waiting for another."""
        if self._path(other, uid):
            return []
        self.members[uid].needs.setdefault(other, any_end)
        self.members[other].blocks[uid] = None
        return self._cascade([uid])

    def forget(self, uid: int, held: Container[int] = ()) -> None:
        """Nobody holds it: it stays only as long as what needed it is held.

        Args:
            uid: which.
            held: those that somebody holds.
        """
        gone = [uid]
        for each in gone:  # which grows
            member = self.members.get(each)
            if member is None or member.blocks:
                continue
            del self.members[each]
            for need in member.needs:
                self.members[need].blocks.pop(each, None)
                if need not in held:
                    gone.append(need)

    def unfinished(self, uids: Iterable[int]) -> list[int]:
        """These, and all they need that has not ended; each after what it needs."""
        found = dict.fromkeys(uids)
        queue = list(found)
        for uid in queue:  # which grows
            for need in self.members[uid].needs:
                if need not in found and self.members[need].state < DONE:
                    found[need] = None
                    queue.append(need)
        return self._in_order(found)

    def blockers(self, uid: int) -> list[int]:
        """What it waits for and what has not ended as it must."""
        states = ((n, e, self.members[n].state) for n, e in self._needs(uid))
        return [n for n, e, state in states if state < DONE or (state > DONE and not e)]

    # -- events ------------------------------------------------------------------------

    def submit(self, uid: int) -> list[Effect]:
        """From prepare to pending, with all that it needs and is still prepared."""
        self.members[uid].move(SUBMIT_EVENT)
        return self._wanted([uid])

    def ended(self, uid: int, state: int, reason: str | None = None) -> list[Effect]:
        """One has ended by itself, or was cancelled; whether it was sent or not."""
        member = self.members[uid]
        event = {DONE: FINISH, CANCELLED: CANCEL_EVENT}.get(state, ERROR_EVENT)
        member.move(event, reason)
        effects: list[Effect] = []
        if member.aborting and state != DONE:
            member.move(ABORT)
            effects.append(Settle(uid, ABORTED, 0))
        # Itself as well: what it needs may have been given up before this was told.
        return effects + self._cascade([uid, *member.blocks])

    def value_lost(self, uid: int) -> None:
        """It was done, and its value is lost: it may be retried as if it had failed."""
        member = self.members[uid]
        member.state, member.reason = FAILED, LOST

    def abort(self, uid: int) -> list[Effect]:
        """Give it up for good, and with it what needs it.

        Raises:
            InvalidTransitionError: it is done, or was aborted.
        """
        member = self.members[uid]
        following(member.state, ABORT)  # or it raises
        if member.sent and member.state == PENDING:
            member.aborting = True
            return [Stop(uid)]
        member.move(ABORT)
        return [Settle(uid, ABORTED, 0), *self._cascade(member.blocks)]

    def retry(self, uid: int) -> list[Effect]:
        """Once more, and with it all that had ended only because of it.

        Raises:
            InvalidTransitionError: it has not failed and was not cancelled.
        """
        self._rearm(uid)
        again = [uid]
        for each in self._in_order(self._downstream(uid)):
            member = self.members[each]
            if member.reason != UPSTREAM or member.state not in (FAILED, CANCELLED):
                continue
            if not self._spoilers(each):
                self._rearm(each)
                again.append(each)
        rearmed: list[Effect] = [Rearm(each) for each in again]
        return rearmed + self._wanted(again)

    def called_back(self, uid: int) -> list[Effect]:
        """One that was sent has come back before it began: it waits here again."""
        self.members[uid].sent = False
        return self._wanted([uid])

    # -- what follows ------------------------------------------------------------------

    def _rearm(self, uid: int) -> None:
        member = self.members[uid]
        member.move(RETRY)
        member.sent = member.aborting = False

    def _wanted(self, uids: list[int]) -> list[Effect]:
        """These are pending: so is all that they need."""
        for uid in uids:  # which grows
            if self._spoilers(uid):
                continue  # it ends here, and needs nothing
            for need in self.members[uid].needs:
                if self.members[need].state == PREPARE:
                    self.members[need].move(SUBMIT_EVENT)
                    uids.append(need)
        ordered = self._in_order(uids)
        effects = self._cascade(ordered)
        for uid in ordered:
            if self.members[uid].state == PENDING and not self.members[uid].sent:
                effects.append(Wait(uid))
        return effects

    def _cascade(self, uids: Iterable[int]) -> list[Effect]:
        """Send, or end, those of these that can be; and so on downwards."""
        effects: list[Effect] = []
        queue = list(uids)
        for uid in queue:  # which grows
            member = self.members[uid]
            if member.state in (DONE, ABORTED) or (
                member.sent and member.state == PENDING
            ):
                continue
            spoilt = self._spoilers(uid)
            # What needs one that was given up can never be, even if it was not asked.
            final = [n for n in spoilt if self.members[n].state == ABORTED]
            because = (final or spoilt or [0])[0]
            if because and (final or member.state == PENDING):
                member.move(_FOLLOWS[self.members[because].state], UPSTREAM)
                effects.append(Settle(uid, member.state, because))
                queue += member.blocks
            elif member.state == PENDING and not self.blockers(uid):
                member.sent = True
                effects.append(Send(uid))
        return effects

    def _needs(self, uid: int) -> Iterable[tuple[int, bool]]:
        return self.members[uid].needs.items()

    def _spoilers(self, uid: int) -> list[int]:
        """What it needs and never gets, unless that is retried."""
        needs = self._needs(uid)
        return [
            n for n, any_end in needs if self.members[n].state > DONE and not any_end
        ]

    # -- walks -------------------------------------------------------------------------

    def _downstream(self, uid: int) -> list[int]:
        """All that wait for it, at any distance."""
        seen = dict.fromkeys(self.members[uid].blocks)
        found = list(seen)
        for each in found:  # which grows
            for other in self.members[each].blocks:
                if other not in seen:
                    seen[other] = None
                    found.append(other)
        return found

    def _in_order(self, uids: Iterable[int]) -> list[int]:
        """These, each after those of them that it needs."""
        left = dict.fromkeys(uids)
        order = []
        for start in list(left):
            # Each stays in the stack until all that it needs has been put in order.
            stack = [start]
            while stack:
                uid = stack[-1]
                lacking = [n for n in self.members[uid].needs if n in left and n != uid]
                if uid in left and lacking:
                    stack += reversed(lacking)
                    continue
                stack.pop()
                if uid in left:
                    del left[uid]
                    order.append(uid)
        return order

    def _path(self, start: int, goal: int) -> list[int]:
        """A way along what is needed; empty: there is none."""
        came_from: dict[int, int] = {start: start}
        found = [start]
        for uid in found:  # which grows
            if uid == goal:
                path = [uid]
                while uid != start:
                    uid = came_from[uid]
                    path.append(uid)
                return path[::-1]
            for need in self.members[uid].needs:
                if need not in came_from:
                    came_from[need] = uid
                    found.append(need)
        return []

    def _circle(self, path: list[int]) -> str:
        names = [self.members[uid].label for uid in path]
        if len(path) == 1:
            return f"{names[0]} cannot wait for itself; leave that requirement out"
        shown = names
        if len(names) > _SHOWN:
            left = len(names) - _SHOWN
            shown = [*names[: _SHOWN // 2], f"{left} more", *names[-_SHOWN // 2 :]]
        return (
            f"{names[-1]} cannot wait for {names[0]}, which waits for it: "
            f"{' -> '.join(shown)}; leave one of these requirements out"
        )
