"""Waiting until nothing is on its way any more: ``runtime.barrier``.

A runtime waits for its own calls, and for all calls that were made inside them, by
whomever: each call knows the outermost one around it. It asks all other heads and
workers; each answers when none of these is on its way there, with the number of such
calls that it has made since it was first asked. Two rounds with the same numbers show
that there was a moment between them at which nothing was on its way anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms.messages import Member, Quiesce, Quiet
from ..core.senders import USER, kind_of
from ..core.task import DONE

if TYPE_CHECKING:
    import asyncio

    from ..core.call import Call
    from .user import UserRuntime


class _Watch:
    """Waits for the end of a call without being one who asks for its result."""

    __slots__ = ("_call", "_future", "_runtime", "_waiters")

    def __init__(
        self, runtime: UserRuntime, call: Call, future: asyncio.Future[None]
    ) -> None:
        self._runtime = runtime
        self._call = call
        self._future = future
        runtime.watch(call, self)
        self._waiters = call.waiters

    def __call__(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
        waiters = self._waiters
        if (
            self._call.state > DONE
            and waiters is not None
            and waiters[0] is self
            and all(type(waiter) is _Watch for waiter in waiters)
        ):
            self._runtime.unheard(self._call)


class Quiescence:
    """Both sides of the waiting, of one runtime; on its loop."""

    def __init__(self, runtime: UserRuntime) -> None:
        self._runtime = runtime
        self._rounds = 0
        # By round and incarnation: who has not answered.
        self._asked: dict[int, dict[int, asyncio.Future[int]]] = {}
        self._waiting: set[asyncio.Task[None]] = set()

    # -- who waits ---------------------------------------------------------------------

    async def reached(self) -> None:
        """Wait for all calls made until now and those made inside them."""
        runtime = self._runtime
        up_to = next(runtime.uids)
        before = None
        while True:
            await self._quiet_here(runtime.incarnation, up_to)
            made = await self._ask_all(up_to)
            if made == before and not self._outstanding(runtime.incarnation, up_to):
                runtime.unheard_failures.flush()
                return
            before = made

    async def _ask_all(self, up_to: int) -> dict[int, int]:
        runtime = self._runtime
        self._rounds += 1
        number = self._rounds
        answers = self._asked[number] = {}
        try:
            for member in list(runtime.members.values()):
                outbox = runtime.outbox(member.incarnation)
                if (
                    member.incarnation != runtime.incarnation
                    and outbox is not None
                    and kind_of(member.uid) & USER
                ):
                    answers[member.incarnation] = runtime.loop.create_future()
                    outbox.send(Quiesce(number, up_to))
            made = {}
            for incarnation, answer in list(answers.items()):
                count = await answer
                if count >= 0:
                    made[incarnation] = count
            return made
        finally:
            del self._asked[number]

    def on_quiet(self, message: Quiet, buffers: Any, sender: int) -> None:
        answer = self._asked.get(message.round, {}).get(sender)
        if answer is not None and not answer.done():
            answer.set_result(message.made)

    def lost(self, member: Member) -> None:
        """It answers nobody, and asks nothing any more."""
        self._runtime.made_inside.pop(member.incarnation, None)
        for answers in self._asked.values():
            answer = answers.get(member.incarnation)
            if answer is not None and not answer.done():
                answer.set_result(-1)

    # -- who is asked ------------------------------------------------------------------

    def on_quiesce(self, message: Quiesce, buffers: Any, sender: int) -> None:
        self._runtime.made_inside.setdefault(sender, 0)
        answering = self._runtime.loop.create_task(self._answer(message, sender))
        self._waiting.add(answering)
        answering.add_done_callback(self._waiting.discard)

    async def _answer(self, message: Quiesce, sender: int) -> None:
        await self._quiet_here(sender, message.up_to)
        outbox = self._runtime.outbox(sender)
        if outbox is not None:
            made = self._runtime.made_inside.get(sender, 0)
            outbox.send(Quiet(message.round, made))

    async def _quiet_here(self, asker: int, up_to: int) -> None:
        """No call of this runtime belongs to those of the asker any more."""
        while call := self._outstanding(asker, up_to):
            ended: asyncio.Future[None] = self._runtime.loop.create_future()
            _Watch(self._runtime, call, ended)
            await ended

    def _outstanding(self, asker: int, up_to: int) -> Call | None:
        # The last that was made most likely ends last.
        for call in reversed(self._runtime.caller.calls.values()):
            root = call.root or call.uid
            if root <= up_to and ids.maker(root) == asker:
                return call
        return None
