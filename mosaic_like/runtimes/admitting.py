"""Calls of one runtime that wait for memory: the clock and the messages of it.

Who may have how much, and when, is decided in ``core/admission.py``. Memory is given
back when what stands for the argument goes, which is when its call has ended. Values
that are kept here and not in shared memory wait for nothing, but are counted too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.gathering import SEGMENT_BYTES, beside
from ..core.admission import LEAST_BYTES, Admission
from ..core.call import rare
from ..core.completion import set_outcome
from ..errors import MemoryOverflowError
from ..ids import task_name
from ..sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.budget import Account
    from ..core.call import Call
    from ..core.task import Task
    from .actor import ActorRuntime

_PERIOD_S = 0.05  # others on this host do not say when they have given some back


class _Copy:
    """Memory for an argument that comes here; gives it back on any thread."""

    __slots__ = ("_admitting", "_nbytes", "_uid")

    def __init__(self, admitting: Admitting, uid: int, nbytes: int) -> None:
        self._admitting = admitting
        self._uid = uid
        self._nbytes = nbytes

    def __del__(self) -> None:
        self._admitting.dropped(self._uid, self._nbytes)


class _Counted:
    """Memory of a tessera or value for its life; gives it back on any thread."""

    __slots__ = ("_account", "_nbytes")

    def __init__(self, account: Account, nbytes: int) -> None:
        self._account = account
        self._nbytes = nbytes

    def __del__(self) -> None:
        self._account.give(memory=self._nbytes)


class Admitting:
    """See the module; on the loop's thread, but where it says otherwise."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._admission = Admission(runtime.sharing.account)
        self._looking = False
        runtime.handlers[wire.Waits] = self._on_waits

    def admit(self, task: Task, call: Call, go: Callable[[], None]) -> None:
        """Bring an argument when there is room for it.

        Args:
            task: that takes it.
            call: the argument, which is elsewhere, or takes memory when it is read.
            go: brings it.
        """
        nbytes = call.result.size or call.result.nbytes_copied
        runtime = self._runtime
        if nbytes < LEAST_BYTES:
            go()
            return
        limit = runtime.sharing.account.limits[0]
        if nbytes > limit:
            error = MemoryOverflowError(
                f"an argument of {size_text(nbytes)} that would be copied here is "
                "larger than all the memory that values may take on this host, "
                f"{size_text(limit)} (option memory=): raise it, or pass it in parts",
                task_name(task.first_uid),
            )
            task.tessera.remove(task)
            runtime.worker.refuse(task, error, wire.MEMORY)
            return

        def begin() -> None:
            rare(call).copy = _Copy(self, task.uid, nbytes)
            go()

        if self._admission.ask(task, nbytes, begin, runtime.loop.time()):
            begin()
        else:
            self._tell(task, waits=True)
            self._look_later()

    def reserve(self, task: Task, go: Callable[[], None]) -> None:
        """Begin with a construction when the memory is there that it reserves.

        Args:
            task: the construction.
            go: called when there is; not if there never can be.
        """
        runtime = self._runtime
        account = runtime.sharing.account
        tessera = task.tessera
        nbytes = tessera.options.memory
        limit = account.limits[0]
        if nbytes > limit:
            error = MemoryOverflowError(
                f"{tessera.options.name} reserves {size_text(nbytes)} (memory=), more "
                "than all that values may take on this host, "
                f"{size_text(limit)} (option memory= of the cluster): reserve less, or "
                "raise that",
                task_name(task.uid),
            )
            runtime.worker.refuse(task, error, wire.MEMORY)
            return

        def begin() -> None:
            tessera.reserved = _Counted(account, nbytes)
            go()

        if self._admission.reserve(task, nbytes, begin, runtime.loop.time()):
            begin()
        else:
            self._tell(task, waits=True)
            self._look_later()

    def keeping(self, task: Task) -> None:
        """A value is kept in this process; what is in segments is counted as such.

        Large ones that have come as bytes, and where there is no memory left also
        smaller ones, go into segments: so they can go to disk.
        """
        if task.result is not None and task.result.shared is not None:
            return
        account = self._runtime.sharing.account
        fits = task.size < SEGMENT_BYTES and account.take_memory(task.size)
        if not fits:
            if self._move(task):
                return
            account.take_memory(task.size, anyhow=True)
        task.counted = _Counted(account, task.size)

    def _move(self, task: Task) -> bool:
        payload = task.result
        if payload is None:
            payload = beside(task.outcome.data)
        moved = self._runtime.sharing.in_segments(payload)
        if moved is not None:
            set_outcome(task, moved)
        return moved is not None

    def dropped(self, uid: int, nbytes: int) -> None:
        """Some is not needed any more; on any thread, in a collection too."""
        runtime = self._runtime
        if not runtime.peers.closed:
            runtime.post(self._give_back, uid, nbytes)

    def _give_back(self, uid: int, nbytes: int) -> None:
        self._runtime.sharing.account.give(memory=nbytes)
        self._admission.give_back(uid, nbytes, self._runtime.loop.time())
        if self._admission.waiting:
            self._look()

    def _look_later(self) -> None:
        runtime = self._runtime
        if not self._looking and not runtime.peers.closed:
            self._looking = True
            runtime.loop.call_later(_PERIOD_S, self._timer, context=runtime.context)

    def _timer(self) -> None:
        self._looking = False
        self._look()
        if self._admission.waiting:
            self._look_later()

    def _look(self) -> None:
        for waiting in self._admission.again(self._runtime.loop.time()):
            self._tell(waiting.task, waits=False)
            waiting.go()

    # -- what the caller knows ---------------------------------------------------------

    def _tell(self, task: Task, *, waits: bool) -> None:
        outbox = self._runtime.outbox(task.caller)
        if outbox is not None:
            outbox.send(wire.Waits(task.uid, waits))

    def _on_waits(self, message: wire.Waits, buffers: Any, sender: int) -> None:
        call = self._runtime.caller.calls.get(message.uid)
        if call is not None:
            rare(call).reason = wire.REASONS[wire.MEMORY] if message.waits else None
