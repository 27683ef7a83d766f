"""Asks the owner of a large value for the parts of it that are wanted here.

The whole stays where it is: the owner loads it, on a thread that runs no methods, and
sends what is picked. Only runtimes that run user code can do that: of what a warehouse
keeps, and of what stands in shared memory, the whole is taken.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..comms import direct
from ..comms import messages as wire
from ..comms.serialization import Referent
from ..core.call import Call
from ..core.parts import Parts
from ..core.payloads import Arrived
from ..core.senders import USER, kind_of
from ..core.task import DONE
from ..proxies.handles import TesseraHandle
from ..proxies.task import TaskHandle, TaskProxy

if TYPE_CHECKING:
    from ..comms.serialization import Handle, Payload
    from .actor import ActorRuntime

_METHOD = "outputs"  # as errors name it


class _Whole(Referent):
    """Mentions a task as a call takes it."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __reference__(self) -> tuple[Handle, tuple[Any, ...]]:
        return self._handle, ("task",)


def _payload(handle: Handle, keys: list[int | str]) -> Payload:
    return direct.dump((_Whole(handle), *keys))


class PartCalls:
    """See the module."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime

    def of_argument(
        self, call: Call, grant: Handle, keys: list[int | str]
    ) -> Parts | None:
        """A call, still to be sent, for parts of a task; None: the whole is to come.

        Args:
            call: the task, which is done.
            grant: of it.
            keys: of the parts.
        """
        if not self._can(call):
            return None
        runtime = self._runtime
        uid = next(runtime.uids)
        part = Call(uid, call.stream, _METHOD, None, 0, time.time())
        return Parts(part, keys, _payload(grant, keys), TaskProxy(runtime, part))

    def of_task(self, task: TaskProxy[Any], key: int | str) -> TaskProxy[Any] | None:
        """The part as a task of its own; None: the whole is to come."""
        call = task._call
        if call.state != DONE or not self._can(call):
            return None
        runtime = self._runtime
        handle = TaskHandle(task)
        stream = runtime.placing.foreign(call.owner)
        target = TesseraHandle(runtime, 0, stream, None, handle)
        extra = wire.Extra(kind=wire.PART)
        payload = _payload(handle, [key])
        return TaskProxy(runtime, runtime.submit(target, _METHOD, payload, extra, 1))

    def _can(self, call: Call) -> bool:
        result = call.result
        if type(result) is not Arrived or not result.size or result.shared is not None:
            return False
        if call.rare is not None and call.rare.pending_fetch:
            return False  # the whole is on its way
        runtime = self._runtime
        if call.owner == runtime.incarnation:
            return False
        owner = runtime.members.get(call.owner)
        return owner is not None and bool(kind_of(owner.uid) & USER)
