"""What the runtime does for the tesserae and tasks that live in it.

It is the port of ``WorkerState`` and its parts: whatever needs a socket, a clock, a
thread or the user's values is asked for here. Nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..comms.messages import Reference
    from .call import Call
    from .outbox import Outbox
    from .parts import Parts
    from .payloads import Arrived
    from .task import Task
    from .tessera import Tessera


class Owner(Protocol):
    """What the runtime does for WorkerState."""

    incarnation: int

    def outbox(self, incarnation: int) -> Outbox | None:
        """To send to a runtime; None if it is lost."""

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any: ...

    def awaited_call(self, reference: Reference) -> Call:
        """A call of another runtime, to subscribe to."""

    def parts(self, call: Call, grant: Any, keys: list[int | str]) -> Parts | None:
        """For a call, to be sent, that brings parts; None: the whole is to come."""

    def failure(self, task: Task, reason: int, why: Any) -> bytes:
        """An error that this runtime makes, as bytes."""

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Have the rest of a payload: unopened segments, chunks that have not come."""

    def unwanted(self, arrived: Arrived) -> None:
        """The rest is not needed any more."""

    def cancel_running(self, task: Task) -> None:
        """Stop its user code."""

    def stopping_call(self, task: Task) -> None:
        """It was asked to end, and so are the calls made inside it.

        Some time later ask to ``abandon`` it.
        """

    def limited(self, task: Task) -> bool:
        """Watch the time that a call has; False: it is over already."""

    def put_off_no_more(self, task: Task) -> None:
        """It has ended before its thread took it up, which may have put it off."""

    def untold(self, task: Task) -> Any:
        """It has ended without a value, and its caller is not told.

        Returns:
            What the task is to keep: its caller is told when that goes.
        """

    def tessera_fails(self, tessera: Tessera) -> None:
        """It is ended, and not in order: ``__close__`` is to run."""

    def tessera_gone(self, tessera: Tessera) -> None: ...
