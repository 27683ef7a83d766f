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
    from collections.abc import Iterable, Iterator

UPSTREAM = "upstream"
_SHOWN = 12  # tasks of a path that an error names
# How a task ends of which a prerequisite has ended so.
_FOLLOWS = {FAILED: UPSTREAM_EVENT, CANCELLED: CANCEL_EVENT, ABORTED: ABORT}


class Send(NamedTuple):
    """Nothing blocks it any more."""

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
    """It was sent and is not wanted any more; its end still comes by ``ended``."""

    uid: int


Effect = Send | Settle | Rearm | Stop


class Member:
    """One task among those that wait for each other."""

    __slots__ = ("aborting", "blocks", "label", "needs", "reason", "sent", "state")

    def __init__(self, label: str, state: int) -> None:
        self.label = label  # for people
        self.state = state
        self.sent = state != PREPARE
        self.reason: str | None = None
        self.aborting = False  # asked for when it could only be cancelled
        # What it waits for; True: however that ends.
        self.needs: dict[int, bool] = {}
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

    def require(self, uid: int, other: int, any_end: bool = False) -> list[Effect]:
        """Let one wait for another.

        Args:
            uid: the one that waits: prepared, or pending and still blocked.
            other: the one that it waits for.
            any_end: however that ends.

        Raises:
            InvalidTransitionError: it has been sent or has ended.
            CycleError: the other waits for it.
        """
        member = self.members[uid]
        if member.sent or member.state > PENDING:
            raise InvalidTransitionError(STATES[member.state], "require")
        path = self._path(other, uid)
        if path:
            raise CycleError(self._circle(path))
        member.needs[other] = any_end and member.needs.get(other, True)
        self.members[other].blocks[uid] = None
        if member.state == PENDING:
            return self._cascade([uid])
        return []

    def forget(self, uid: int) -> None:
        """Nobody holds it, and nothing here waits for it."""
        member = self.members.pop(uid, None)
        if member is not None:
            for other in member.needs:
                if other in self.members:
                    self.members[other].blocks.pop(uid, None)

    def blockers(self, uid: int) -> list[int]:
        """What it waits for and what has not ended as it must."""
        return [n for n, any_end in self._needs(uid) if not self._serves(n, any_end)]

    # -- events ------------------------------------------------------------------------

    def submit(self, uid: int) -> list[Effect]:
        """From prepare to pending, with all that it needs and that is still prepared."""
        self.members[uid].move(SUBMIT_EVENT)
        asked = [uid]
        for each in asked:  # which grows
            for need, _ in self._needs(each):
                if self.members[need].state == PREPARE:
                    self.members[need].move(SUBMIT_EVENT)
                    asked.append(need)
        return self._cascade(self._in_order(asked))

    def ended(self, uid: int, state: int, reason: str | None = None) -> list[Effect]:
        """One that was sent has ended."""
        member = self.members[uid]
        effects: list[Effect] = []
        event = {DONE: FINISH, CANCELLED: CANCEL_EVENT}.get(state, ERROR_EVENT)
        member.move(event, reason)
        if member.aborting and state != DONE:
            member.move(ABORT)
            effects.append(Settle(uid, ABORTED, 0))
        return effects + self._followers(uid)

    def cancel(self, uid: int) -> list[Effect] | None:
        """Ask that it ends; None: it has."""
        member = self.members[uid]
        if member.state >= DONE:
            return None
        if member.sent:
            return [Stop(uid)]
        member.move(CANCEL_EVENT)
        return [Settle(uid, CANCELLED, 0), *self._followers(uid)]

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
        return [Settle(uid, ABORTED, 0), *self._followers(uid)]

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
            if not any(self._spoils(n, any_end) for n, any_end in self._needs(each)):
                self._rearm(each)
                again.append(each)
        return [*[Rearm(each) for each in again], *self._cascade(again)]

    # -- what follows ------------------------------------------------------------------

    def _rearm(self, uid: int) -> None:
        member = self.members[uid]
        member.move(RETRY)
        member.sent = member.aborting = False

    def _followers(self, uid: int) -> list[Effect]:
        """What one that has ended lets others do."""
        member = self.members[uid]
        effects: list[Effect] = []
        if member.state == ABORTED:
            for other in [o for o in member.blocks if not self.members[o].needs[uid]]:
                follower = self.members[other]
                # Whatever it was to become, it never can.
                if not follower.sent or follower.state in (FAILED, CANCELLED):
                    if follower.state == ABORTED:
                        continue
                    follower.move(ABORT, UPSTREAM)
                    effects.append(Settle(other, ABORTED, uid))
        queue = [uid, *(e.uid for e in effects if isinstance(e, Settle))]
        if member.state == ABORTED:
            for other in queue[1:]:
                effects += self._followers(other)
        return effects + self._cascade(list(member.blocks))

    def _cascade(self, uids: list[int]) -> list[Effect]:
        """Send, or end, those of these that can be; and so on downwards."""
        effects: list[Effect] = []
        queue = uids
        for uid in queue:  # which grows
            member = self.members[uid]
            if member.state != PENDING or member.sent:
                continue
            spoilt = [n for n, any_end in self._needs(uid) if self._spoils(n, any_end)]
            if spoilt:
                because = spoilt[0]
                member.move(_FOLLOWS[self.members[because].state], UPSTREAM)
                effects.append(Settle(uid, member.state, because))
                queue += member.blocks
            elif not self.blockers(uid):
                member.sent = True
                effects.append(Send(uid))
        return effects

    def _needs(self, uid: int) -> Iterable[tuple[int, bool]]:
        return self.members[uid].needs.items()

    def _serves(self, uid: int, any_end: bool) -> bool:
        state = self.members[uid].state
        return state >= DONE if any_end else state == DONE

    def _spoils(self, uid: int, any_end: bool) -> bool:
        return self.members[uid].state > DONE and not any_end

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
        """These, each after those of them that it needs, at whatever distance."""
        wanted = dict.fromkeys(uids)
        seen: set[int] = set()
        order = []
        for start in wanted:
            # A walk that comes back to each once all before it has been seen.
            stack: list[tuple[int, Iterator[int]]] = [
                (start, iter(self.members[start].needs))
            ]
            while stack:
                uid, needs = stack[-1]
                need = next((n for n in needs if n not in seen), None)
                if need is not None and uid not in seen:
                    stack.append((need, iter(self.members[need].needs)))
                    continue
                stack.pop()
                if uid not in seen:
                    seen.add(uid)
                    if uid in wanted:
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
