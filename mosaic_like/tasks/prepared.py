"""A function task that is made and not sent: what policies and graphs work with.

Its arguments are pickled, its proxy exists. It is sent once, or it ends here; until
then it can be cancelled. All but making one is for the runtime's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms.messages import ERROR, Extra
from ..core.call import Call, rare
from ..core.task import DONE, PENDING
from ..proxies.task import TaskProxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from .function import Task
    from .planning import Plan
    from .submission import Functions


class Prepared:
    """See the module.

    Args:
        functions: of the runtime that submits it.
        task: whose call this is.
        args, kwargs: of the call, as they were given.
        call: what its proxy shows.
        payload: the arguments, pickled.
        extra: what goes with the call.
        plan: what its policy wants; None: nothing.
    """

    __slots__ = (
        "args",
        "call",
        "extra",
        "functions",
        "kwargs",
        "owner",
        "payload",
        "plan",
        "task",
    )

    def __init__(
        self,
        functions: Functions,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        call: Call,
        payload: Any,
        extra: Extra | None,
        plan: Plan | None = None,
    ) -> None:
        self.plan = plan
        self.owner = 0  # incarnation of the worker where it is to run; 0: any
        self.functions = functions
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.call = call
        self.payload = payload
        self.extra = extra

    @property
    def is_open(self) -> bool:
        """It has not ended: as it was not sent, it may still be sent or ended here."""
        return self.call.state < DONE

    def proxy(self) -> TaskProxy[Any]:
        """What the user is given; to be made once, since dropping it says so."""
        return TaskProxy(self.functions.runtime, self.call)

    def hold(self, then: Callable[[], Any] | None = None, reason: str = "") -> None:
        """Keep it back for a while.

        Args:
            then: called if it is cancelled meanwhile, or late.
            reason: of its state, such as ``limit``; none while it is in ``prepare``.
        """
        if reason:
            self.call.state = PENDING
            rare(self.call).reason = reason
        self.functions.hold(self.call, then)

    def submit(self, proxy: TaskProxy[Any] | None = None) -> None:
        """It is sent as soon as its policy lets it; or it ends, cached or refused.

        Args:
            proxy: that of its user, through which its value is kept for others.
        """
        observing = self.functions.runtime.observing
        if observing.recorders and self.is_open:
            self.call.state = PENDING
            self.ask_for_news()
            observing.submitted(self.call, self.payload)
        if self.plan is None:
            self.send()
        else:
            self.plan.begin(self, proxy)

    def ask_for_news(self) -> None:
        """Its worker is to tell when attempts begin, and how each went."""
        self.extra = self.extra or Extra()
        self.extra.told = True

    def end_as(self, other: Call, reason: str) -> None:
        """It ends as another has ended, whose value is here.

        Args:
            other: that is done or failed.
            reason: of its state, if it is done.
        """
        runtime = self.functions.runtime
        if other.state == DONE and type(other.result) is bytes:
            if self.is_open:
                self.functions.give_data(self.call, other.result, reason)
        elif other.state == DONE:
            self.done(runtime.value_of(other), reason)
        else:
            told = None if other.rare is None else other.rare.reason
            self.failed(runtime.error_of(other), told or "error")

    def forget_arguments(self) -> None:
        """It has a value, and will not be sent again."""
        self.args, self.kwargs, self.payload = (), {}, b""

    def send(self) -> None:
        """It goes into the queue of function tasks, if it has not ended."""
        if self.is_open:
            call = self.call
            call.state = PENDING
            if call.rare is not None:
                call.rare.reason = None
            self.functions.send(self)

    def done(self, value: Any, reason: str | None = None) -> None:
        """It is done with a value that was not made by running it.

        Args:
            value: any that can travel.
            reason: ``cached`` or ``reused``.
        """
        if self.is_open:
            self.functions.give(self.call, value, reason)

    def failed(
        self, error: BaseException, reason: str = "error", kind: int = ERROR
    ) -> None:
        """It fails without having run.

        Args:
            error: what awaiting it raises.
            reason: of its state.
            kind: one of those of ``messages.Failed``.
        """
        if self.is_open:
            self.functions.refuse(self.call, error, reason, kind)

    def cancelled(self, reason: str) -> None:
        """It is cancelled without having run; ``reason`` is that of its state."""
        if self.is_open:
            self.functions.runtime.cancel(self.call, reason)
