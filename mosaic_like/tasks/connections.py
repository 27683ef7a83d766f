"""Tasks that wait for each other, in the runtime that put them together.

``core/dependencies.py`` decides who is sent, who ends and who goes again; here that is
done to the calls. Tasks come in when they are prepared, when others are to wait for
them, and when they fail, so that they can be retried; one that is submitted by itself
and ends well never comes here. How a call is made to go again is in ``again``.
Everything is for the runtime's thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.call import HELD, Call, rare
from ..core.dependencies import LOST, Dependencies, Rearm, Send, Settle, Stop, Wait
from ..core.task import (
    ABORT,
    DONE,
    FAILED,
    PENDING,
    PREPARE,
    RETRY,
    RUNNING,
    STATES,
    SUBMIT_EVENT,
    following,
)
from ..errors import BlockedError, InvalidTransitionError
from ..ids import task_name
from ..proxies.records import About, parents_of
from ..proxies.task import TaskProxy
from .again import check_kept, renewed, reset
from .prepared import Prepared
from .takers import needs_of, sent_takers
from .unsent import unsent_error
from .worn import Worn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..core.dependencies import Effect
    from ..core.dispatch import FunctionQueue
    from ..core.window import Entry
    from .submission import Functions

_NAMED = 5  # blockers that an error lists


class Connections:
    """Of one runtime; made with its ``Functions``."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._runtime = functions.runtime
        self.state = Dependencies()
        # By the first uid, as all of these: those whose proxies are still held.
        self.calls: dict[int, Call] = {}
        # What may be sent, or sent again, and where.
        self._kept: dict[int, Prepared | Entry | Worn] = {}
        self._queues: dict[int, FunctionQueue] = {}
        # What was required beside the arguments, which hold what they mention.
        self._required: dict[int, list[TaskProxy[Any]]] = {}

    # -- who comes in ------------------------------------------------------------------

    def add(self, prepared: Prepared) -> None:
        """A task that was prepared."""
        call = prepared.call
        if call.state >= DONE or call.hold != HELD:
            return
        item, task, plan = rare(call), prepared.task, prepared.plan
        if item.about is None:
            run_name = task.name if plan is None else plan.run_name or task.name
            tags = () if plan is None else plan.tags
            item.about = About(run_name, tags, parents_of(prepared.payload))
        uid = self._enlist(call)
        self._kept[uid] = prepared
        self._queues[uid] = self._functions.queues[task.is_async]
        prepared.hold()
        options = task._options
        after = {t if isinstance(t, TaskProxy) else t._task for t in options.after}
        for proxy, any_end in needs_of(prepared.payload):
            self._need(uid, proxy, any_end, proxy in after)

    def failed(self, queue: FunctionQueue, entry: Entry) -> None:
        """A task that was submitted has failed or was cancelled, or is about to be."""
        if entry.call.first_uid not in self._kept:
            self._keep(entry, queue)

    def keep(self, prepared: Prepared) -> None:
        """The same, of one with a policy, which is asked again."""
        if not isinstance(self._kept.get(prepared.call.first_uid), Prepared):
            self._keep(prepared, self._functions.queues[prepared.task.is_async])

    def _keep(self, kept: Prepared | Entry, queue: FunctionQueue) -> None:
        uid = self._enlist(kept.call)
        self._kept[uid], self._queues[uid] = kept, queue
        for proxy, any_end in needs_of(kept.payload):
            self._do(self.state.know(uid, self._enlist(proxy._call), any_end))

    def _enlist(self, call: Call) -> int:
        """It is a member from now on."""
        uid = call.first_uid
        if uid in self.calls:
            return uid
        self.calls[uid] = call
        rare(call).connected = True
        member = self.state.members.get(uid)
        if member is None:
            member = self.state.add(uid, call.name, call.state)
            member.reason = call.reason
        if call.state < DONE:
            self._watch(uid, call)
        return uid

    def _watch(self, uid: int, call: Call) -> None:
        def ended() -> None:
            # After all who wait for it: it has ended before what follows from that.
            waiters = all_waiters.pop()  # or it would be in a circle with this
            alone = len(waiters) == 1
            waiters.append(lambda: self._ended(uid, call, alone))

        self._runtime.watch(call, ended)
        all_waiters = [call.waiters]

    def _need(
        self, uid: int, proxy: TaskProxy[Any], any_end: bool, orders_only: bool
    ) -> None:
        other = self._enlist(proxy._call)
        self._do(self.state.require(uid, other, any_end, orders_only))

    def stayed(self, queue: FunctionQueue, entry: Entry) -> None:
        """The value of a task stays at its worker, which may die: it may be retried.

        Its arguments are kept for that if they are small, and no task among them is
        kept alive by it. One with a policy is not: that would have to be asked again.
        """
        call = entry.call
        worn = Worn.of(entry)
        if worn is not None and (call.rare is None or call.rare.guard is None):
            self._keep(entry, queue)
            self._kept[call.first_uid] = worn

    # -- what users ask for ------------------------------------------------------------

    def require(self, call: Call, others: Iterable[TaskProxy[Any]]) -> None:
        """Let a task wait for others.

        Raises:
            InvalidTransitionError: it was sent or has ended.
            CycleError: one of them waits for it.
        """
        uid = self._enlist(call)
        for proxy in others:
            try:
                self._need(uid, proxy, False, True)
            except InvalidTransitionError as error:
                error.add_note(
                    f"  {call.name} was given to the workers, or has ended: what "
                    "it waits for is said before it is submitted, see Task.task()"
                )
                raise
            self._required.setdefault(uid, []).append(proxy)

    def submit(self, call: Call, wait: bool) -> None:
        """Send a prepared task as soon as nothing blocks it, with what it needs.

        Raises:
            InvalidTransitionError: it is not prepared.
            BlockedError: it may not wait, and has to.
        """
        following(call.state, SUBMIT_EVENT)  # or it raises
        uid = self._enlist(call)
        blockers = () if wait else self.state.blockers(uid)
        if blockers:
            labels = [self.state.members[b] for b in blockers[:_NAMED]]
            names = ", ".join(f"{m.label} ({STATES[m.state]})" for m in labels)
            more = len(blockers) - len(labels)
            raise BlockedError(
                f"{call.name} waits for {names}"
                + (f" and {more} more" if more else "")
                + "; submit() without wait=False sends it when they have ended",
                task_name(uid),
            )
        self._do(self.state.submit(uid))

    def want(self, call: Call) -> None:
        """Somebody waits for a task: if it is only prepared, it is submitted."""
        if call.state == PREPARE and call.first_uid in self._kept:
            self.submit(call, True)

    def retry(self, call: Call) -> None:
        """Once more, with those that ended only because of it.

        Raises:
            InvalidTransitionError: it has neither failed nor was it cancelled, and its
                value is not lost.
            TypeError: it is no function task of this runtime, or its arguments were
                not kept.
        """
        self._look_for_value(call)
        following(call.state, RETRY)
        if call.first_uid not in self._kept:
            for queue in self._functions.queues:
                entry = queue.entry_of(call)
                if entry is not None:
                    self.failed(queue, entry)
        self._check_kept(call)
        self._revive(call)

    def _look_for_value(self, call: Call) -> None:
        """One that is done has failed if its value is lost, asked for or not."""
        self._runtime.caller.asking.look_for_value(call)
        member = self.state.members.get(call.first_uid)
        if member is not None and member.state == DONE and call.state == FAILED:
            self.state.value_lost(call.first_uid)

    def _check_kept(self, call: Call) -> None:
        check_kept(call, self._kept.get(call.first_uid), self.calls, self.state)

    def _revive(self, call: Call) -> None:
        """Retry it, and first what it takes whose value is lost, too."""
        again = [call]
        for each in again:  # which grows
            for need in self.state.members[each.first_uid].needs:
                other = self.calls.get(need)
                if other is not None and other.state == DONE:
                    self._look_for_value(other)
                    if other.state == FAILED:
                        self._check_kept(other)
                        again.append(other)
        for each in again:
            uid = each.first_uid
            kept = self._kept[uid]
            if type(kept) is Worn:
                proxies = iter(self._proxies(need for _, need in kept.needs))
                self._kept[uid] = kept.entry(proxies)
        for each in reversed(again):
            if each.state > DONE:  # it may go again with one that it needs
                effects = self.state.retry(each.first_uid)
                self._call_back(e.uid for e in effects if type(e) is Rearm)
                self._do(effects)

    def _call_back(self, uids: Iterable[int]) -> None:
        """What was sent to take values that are to be made again waits for these.

        Where it is it would end as those had ended, whose news may be on its way.
        """
        # One that takes a value that was lost may have it, and run.
        ended = [uid for uid in uids if self.calls[uid].reason != LOST]
        runtime = self._runtime
        for queue, owner, entry in sent_takers(self._functions.queues, ended):
            call = entry.call
            # Those with a policy or a place of their own would have to be asked again.
            is_plain = call.rare is None or call.rare.guard is None
            is_plain = is_plain and call.uid not in queue.places
            if call.hold != HELD or not is_plain or runtime.limiting.is_ending(call):
                continue
            self.failed(queue, entry)
            uid = call.first_uid
            runtime.release(call)  # while it is known where
            queue.handed_back(owner, call.uid)
            runtime.caller.calls.pop(call.uid, None)
            self._renew(uid)
            self._do(self.state.called_back(uid))

    def abort(self, call: Call) -> None:
        """Give a task up for good, with what needs it.

        Raises:
            InvalidTransitionError: it runs, is done or was aborted.
        """
        shown = call.rare is not None and call.rare.running_s is not None
        following(RUNNING if shown and call.state == PENDING else call.state, ABORT)
        self._do(self.state.abort(self._enlist(call)))

    def then(
        self,
        task: TaskProxy[Any],
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> TaskProxy[Any]:
        """A task that takes the value of another, prepared; from any thread."""
        from .calls import held_back
        from .function import Task
        from .marking import task as as_task

        made = fn if isinstance(fn, Task) else as_task(fn)
        return held_back(made, (task, *args), kwargs, 3)

    def required(self, call: Call) -> list[TaskProxy[Any]]:
        """What it waits for, as far as that is held."""
        member = self.state.members.get(call.first_uid)
        return [] if member is None else self._proxies(member.needs)

    def blocking(self, call: Call) -> list[TaskProxy[Any]]:
        """What waits for it, as far as that is held."""
        member = self.state.members.get(call.first_uid)
        return [] if member is None else self._proxies(member.blocks)

    def blockers(self, call: Call) -> list[TaskProxy[Any]]:
        """What it still has to wait for."""
        if call.first_uid not in self.calls:
            return []
        return self._proxies(self.state.blockers(call.first_uid))

    def unfinished(self, calls: Iterable[Call]) -> list[TaskProxy[Any]]:
        """These, and all they need that has not ended; each after what it needs."""
        uids = [self._enlist(call) for call in calls]
        return self._proxies(self.state.unfinished(uids))

    def _proxies(self, uids: Iterable[int]) -> list[TaskProxy[Any]]:
        """Of those that are held: further proxies of the same tasks."""
        found: list[TaskProxy[Any]] = []
        for uid in uids:
            call = self.calls.get(uid)
            if call is not None:
                rare(call).proxies += 1
                found.append(TaskProxy(self._runtime, call))
        return found

    # -- who goes ----------------------------------------------------------------------

    def dropped(self, call: Call) -> None:
        """Nobody holds a task that has not been submitted, or has ended."""
        uid = call.first_uid
        if self.calls.get(uid) is not call:
            return
        del self.calls[uid]
        queue = self._queues.pop(uid, None)
        if queue is not None:
            queue.let_go(call)
        self._kept.pop(uid, None)
        self._required.pop(uid, None)
        self.state.forget(uid, self.calls)

    # -- what happens ------------------------------------------------------------------

    def _ended(self, uid: int, call: Call, alone: bool) -> None:
        """A member has ended; ``alone``: nobody else waited for that."""
        member = self.state.members.get(uid)
        if self.calls.get(uid) is not call or member is None:
            return
        if member.state != call.state:  # or it was ended by what stands below
            self._do(self.state.ended(uid, call.state, call.reason))
        if call.state == DONE:
            if type(self._kept.get(uid)) is not Worn:
                self._kept.pop(uid, None)  # with its arguments
            self._required.pop(uid, None)
        if call.hold != HELD:
            self.dropped(call)
            if alone and call.state == FAILED:
                self._runtime.unheard(call)

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(uid):
                    self._send(uid)
                case Wait(uid):
                    self._wait(uid)
                case Rearm(uid):
                    self._rearm(uid)
                case Stop(uid):
                    self._runtime.cancel(self.calls[uid], "it was aborted")
                case Settle(uid, state, because):
                    self._settle(uid, state, because)

    def _send(self, uid: int) -> None:
        kept = self._kept[uid]
        assert not isinstance(kept, Worn), "of one that is done"
        if isinstance(kept, Prepared):
            (proxy,) = self._proxies([uid])
            kept.submit(proxy)
        else:
            rare(kept.call).reason = None
            self._functions.send_again(self._queues[uid], kept)
        self._look(kept.call)

    def _wait(self, uid: int) -> None:
        call = self.calls[uid]
        call.state = PENDING
        orders = self.state.members[uid].orders
        only_order = orders.issuperset(self.state.blockers(uid))
        rare(call).reason = "after" if only_order else "arguments"
        self._tell(call, self._kept[uid].payload)
        self._runtime.caller.calls[call.uid] = call  # on its way, as others are

    def _rearm(self, uid: int) -> None:
        """It has ended and is to be sent again."""
        call, runtime = self.calls[uid], self._runtime
        reset(runtime, call)
        payload = self._renew(uid).payload
        item = rare(call)
        runtime.when_settled(call, lambda: item.watched.look(call))
        self._tell(call, payload)
        self._watch(uid, call)

    def _renew(self, uid: int) -> Prepared | Entry:
        call, kept, queue = self.calls[uid], self._kept[uid], self._queues[uid]
        found = self._kept[uid] = renewed(self._runtime, call, kept, queue)
        return found

    def _tell(self, call: Call, payload: Any) -> None:
        """It has moved: for records, and those who want to hear of it."""
        observing = self._runtime.observing
        if observing.recorders:
            observing.submitted(call, payload)
        self._look(call)

    def _look(self, call: Call) -> None:
        watched = rare(call).watched
        if watched is not None:
            watched.look(call)

    def _settle(self, uid: int, state: int, because: int) -> None:
        call = self.calls.get(uid)
        if call is None:
            return
        other, culprit = self.state.members.get(because), self.calls.get(because)
        label = None if other is None else other.label
        result = None if culprit is None else culprit.result
        error = unsent_error(call, state, label, result, self._runtime.serializer)
        if call.state < DONE:
            rare(call).reason = "upstream" if because else None
            kind = wire.UPSTREAM if state == FAILED else wire.CANCELLED
            self._queues[uid].let_go(call)
            self._runtime.caller.end_unsent(call, state, kind, error)
        else:  # it had failed, and is given up
            call.state, call.result = state, error
            call.settled_s = time.time()
            rare(call).reason = "upstream" if because else None
            rare(call).unheard = False
            self._tell(call, b"")
