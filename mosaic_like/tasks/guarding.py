"""What holds a call back, what it holds while it runs, and what is done at its end.

A Guard is with one call from its submission to its end, on the runtime's thread:

    delay       until its time has come
    reused      the same is running: it ends as that does; or it is done, cached
    arguments   of one that takes slots: first they must have ended, for whoever held a
                slot while it waits for another might wait for ever
    limit       until the slots are given
    sent        and, where an attempt failed and the next is to wait: retry, limit, sent

Whatever way a call ends, its waiting is over and its slots are freed: that hangs on
the end of the call alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..core.call import HELD, rare
from ..core.locality import arguments_of
from ..core.task import CANCELLED, DONE, PENDING
from ..errors import ConcurrencyError
from ..proxies.records import About, parents_of
from .caching import Cache, Hit
from .concurrency import DROP, ERROR, REUSE, SUBMITTED, WAIT, differences
from .hooks import end_hooks
from .planning import identity, namespace
from .submission import functions_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.call import Call
    from ..proxies.task import TaskProxy
    from .planning import Plan
    from .prepared import Prepared


class Guards:
    """What the guarded calls of one runtime share."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.caches: dict[str, Cache] = {}
        # Calls that others may be reused for, by the name of their slot, in order.
        self.same: dict[str, list[Guard]] = {}

    def cache(self, name: str) -> Cache:
        """Of a task, by ``namespace``."""
        found = self.caches.get(name)
        if found is None:
            found = self.caches[name] = Cache()
        return found


def guards_of(runtime: Any) -> Guards:
    """Those of a runtime, made when first asked for."""
    functions = functions_of(runtime)
    if functions.guards is None:
        functions.guards = Guards(runtime)
    return functions.guards  # type: ignore[no-any-return]  # it is one of these


class Guard:
    """See the module.

    Args:
        guards: of the runtime.
        prepared: the call, which is not sent.
        plan: of it.
    """

    __slots__ = (
        "_cache",
        "_call",
        "_guards",
        "_held",
        "_kept",
        "_plan",
        "_prepared",
        "_taking",
        "_undo",
    )

    def __init__(self, guards: Guards, prepared: Prepared, plan: Plan) -> None:
        self._guards = guards
        self._prepared = prepared
        self._call = prepared.call
        self._plan = plan
        self._cache: Cache | None = None  # that has it under its key
        self._held: int | None = None  # number of the slot that it has to its end
        self._taking: list[int] = []  # of the slots of this attempt
        self._undo: Callable[[], Any] | None = None  # what it waits for
        # A proxy of its own of what it follows, or of itself while others follow it.
        self._kept: TaskProxy[Any] | None = None

    @property
    def _runtime(self) -> Any:
        return self._guards.runtime

    def begin(self, proxy: TaskProxy[Any] | None) -> None:
        """The call is submitted; ``proxy``: the one its user has, if there is any."""
        call, plan = self._call, self._plan
        if call.state >= DONE:
            return  # cancelled before
        item = rare(call)
        item.about = About(
            plan.run_name or self._prepared.task.name,
            plan.tags,
            parents_of(self._prepared.payload),
        )
        call.state = PENDING
        if plan.options.on_state:
            self._prepared.ask_for_news()
            for hook in plan.options.on_state:
                self._runtime.observing.watch(call, hook)
        item.guard = self
        if plan.key is not None or self._is_reused:
            self._kept = proxy  # its value is for others too
        self._runtime.when_settled(call, self._ended)
        self._hold("delay" if plan.options.delay else "")
        if plan.error is not None:
            self._prepared.failed(plan.error)
        elif plan.options.delay:
            self._later(plan.options.delay, self._look)
        else:
            self._look()

    # -- waiting -----------------------------------------------------------------------

    def _hold(self, reason: str) -> None:
        call = self._call
        call.state = PENDING
        rare(call).reason = reason or None
        self._runtime.caller.calls[call.uid] = call  # it counts as one on its way
        self._prepared.functions.hold(call, self._stop_waiting)
        self._moved()

    def _stop_waiting(self) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def _later(self, delay_s: float, then: Callable[[], Any]) -> None:
        loop = self._runtime.loop
        timer = loop.call_later(delay_s, then, context=self._runtime.context)
        self._undo = timer.cancel

    def _moved(self) -> None:
        watched = rare(self._call).watched
        if watched is not None:
            watched.look(self._call)

    @property
    def _is_open(self) -> bool:
        return self._call.state < DONE

    # -- what is there already ---------------------------------------------------------

    def _look(self) -> None:
        """Its time has come: is the same here, or under way?"""
        self._undo = None
        if not self._is_open:
            return
        plan = self._plan
        if plan.key is not None and self._cache is None:
            cache = self._guards.cache(namespace(self._prepared.task))
            hit, other = cache.begin(
                plan.key,
                self,
                time.monotonic(),
                refresh=plan.is_refreshed,
                is_there=Guard.has_value,
            )
            if hit is not Hit.RUN:
                self._follow(other, "reused" if hit is Hit.REUSED else "cached")
                return
            self._cache = cache
        if self._is_reused and not self._first_of_same():
            return
        self._take_for_all()

    @property
    def _is_reused(self) -> bool:
        rule = self._plan.options.concurrency
        return rule is not None and rule.on_conflict == REUSE

    def _first_of_same(self) -> bool:
        """Whether there is room for it among those of its rule; else it is settled."""
        slot, rule = self._plan.slot, self._plan.options.concurrency
        assert slot is not None, "its rule has a slot"
        same = self._guards.same.setdefault(slot.name, [])
        if len(same) < rule.limit:
            same.append(self)
            return True
        first = same[0]
        if rule.strict:
            mine, others = self._plan.parameters, first._plan.parameters
            names = differences(mine, others, identity)
            if names:
                found = ", ".join(
                    f"{name}={mine[name]!r} and {others.get(name)!r}" for name in names
                )
                self._prepared.failed(
                    ConcurrencyError(
                        f"{self._call.name}: the call that goes on already has other "
                        f"arguments: {found}; wait for it, or leave strict=True out",
                    ),
                    "conflict",
                )
                return False
        self._follow(first, "reused")
        return False

    def has_value(self) -> bool:
        """Of one that has ended: its value can still be had."""
        kept = self._kept
        if kept is None or kept._call.state != DONE:
            return False
        runtime = self._runtime
        owner = kept._call.stream.owner
        return not (runtime.is_away(kept._call) and owner in runtime.causes)

    def _follow(self, other: Guard, reason: str) -> None:
        """It ends as another does; if that is cancelled it goes on by itself."""
        self._kept = other._kept
        self._hold("reused")
        runtime = self._runtime
        followed = other._call

        def ended() -> None:
            if not self._is_open:
                return
            if followed.state == CANCELLED:
                self._kept = None
                self._look()
            elif followed.state == DONE and runtime.is_away(followed):
                runtime.fetch(followed, give)
            else:
                give()

        def give() -> None:
            if self._is_open:
                rare(self._call).origin = _origin(followed)
                rare(self._call).stored = rare(followed).stored
                self._prepared.end_as(followed, reason)

        runtime.when_settled(followed, ended)

    # -- slots -------------------------------------------------------------------------

    def _take_for_all(self) -> None:
        """A slot that it has from now to its end."""
        plan = self._plan
        rule = plan.options.concurrency
        if rule is None or rule.scope != SUBMITTED:
            self._wait_for_arguments()
            return
        assert plan.slot is not None, "its rule has a slot"

        def taken(is_taken: bool) -> None:
            self._undo = None
            if self._is_open:
                if is_taken:
                    self._wait_for_arguments()
                else:
                    self._refused()

        waits = rule.on_conflict in (WAIT, REUSE)
        self._hold("limit")
        self._held = self._runtime.slots.take([plan.slot], waits, taken)

    def _refused(self) -> None:
        rule = self._plan.options.concurrency
        if rule.on_conflict == DROP:
            self._prepared.cancelled("dropped")
            return
        self._prepared.failed(
            ConcurrencyError(
                f"{self._call.name}: {rule.limit} of its calls go on already, which is "
                "the limit; submit it later, or use on_conflict='wait'"
            ),
            "conflict",
        )

    def _wait_for_arguments(self) -> None:
        """Those of a call that takes slots; without any it is sent."""
        slots = self._slots()
        if not slots:
            self._send()
            return
        payload = self._prepared.payload
        calls = [] if type(payload) is bytes else arguments_of(payload)
        left = [call for call in calls if call.state < DONE]
        if not left:
            self._take(self._send)
            return
        self._hold("arguments")
        count = len(left)

        def ended() -> None:
            nonlocal count
            count -= 1
            if not count and self._is_open:
                self._take(self._send)

        for call in left:
            self._runtime.when_settled(call, ended)

    def _slots(self) -> list[Any]:
        """What each attempt takes."""
        plan = self._plan
        rule = plan.options.concurrency
        if rule is None or rule.scope == SUBMITTED or plan.slot is None:
            return plan.tag_slots
        return [plan.slot, *plan.tag_slots]

    def _take(self, then: Callable[[], Any], *, is_first: bool = True) -> None:
        """Take the slots of an attempt, then go on."""
        rule = self._plan.options.concurrency
        refuses = (
            is_first
            and rule is not None
            and rule.scope != SUBMITTED
            and rule.on_conflict in (DROP, ERROR)
        )
        slots = self._slots()
        # One that may be refused is asked for alone: for tags it waits.
        first, rest = (slots[:1], slots[1:]) if refuses else (slots, [])
        slots_of = self._runtime.slots

        def taken(is_taken: bool) -> None:
            if not self._is_open:
                return
            if not is_taken:
                self._refused()
            elif rest:
                self._taking.append(slots_of.take(rest, True, lambda _: then()))
            else:
                then()

        self._hold("limit")
        self._taking.append(slots_of.take(first, not refuses, taken))

    # -- attempts ----------------------------------------------------------------------

    def _send(self) -> None:
        self._undo = None
        if self._is_open:
            self._prepared.send()
            self._moved()

    def between(self) -> None:
        """An attempt has failed, and the next one waits: it has no slots meanwhile."""
        self._free_attempt()

    def again(self, send: Callable[[], Any]) -> None:
        """The next attempt is to begin."""
        if not self._is_open:
            return

        def go() -> None:
            if self._is_open:
                send()

        if self._slots():
            self._take(go, is_first=False)
        else:
            go()

    # -- the end -----------------------------------------------------------------------

    def _free_attempt(self) -> None:
        taking, self._taking = self._taking, []
        for number in taking:
            self._runtime.slots.free(number)

    def _ended(self) -> None:
        """However it was: also cancelled while it waited, or lost."""
        self._free_attempt()
        if self._held is not None:
            self._runtime.slots.free(self._held)
            self._held = None
        self._stop_waiting()
        self._leave_same()
        call, plan = self._call, self._plan
        is_done = call.state == DONE
        if self._cache is not None and plan.key is not None:
            self._cache.end(
                plan.key,
                self,
                time.monotonic(),
                has_value=is_done,
                expiration_s=plan.expiration_s,
            )
        if self._cache is None or not is_done:
            self._kept = None  # nobody will ask for its value here
        self._moved()
        rare(call).guard = None
        if is_done:
            # As long as its value is cached this guard is kept, and needs no more.
            plan.parameters = {}
            self._prepared.forget_arguments()
        elif call.hold == HELD:  # its user may retry it
            self._prepared.functions.connections.keep(self._prepared)
        end_hooks(self._runtime, call, plan.options)

    def _leave_same(self) -> None:
        slot = self._plan.slot
        if slot is None or not self._is_reused:
            return
        same = self._guards.same.get(slot.name, [])
        if self in same:
            same.remove(self)
        if not same:
            self._guards.same.pop(slot.name, None)


def _origin(call: Call) -> int:
    """The uid of the call that made a value."""
    origin = 0 if call.rare is None else call.rare.origin
    return origin or call.uid
