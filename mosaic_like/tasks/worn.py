"""What is kept of a function task that is done, for its value may be lost.

A value that stays at its worker goes with it. The task can run again if its arguments
are there: they are kept if they are small. The tasks among them are kept by name, for
otherwise each step of a long chain would hold the value of the step before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..comms.serialization import LARGE_BYTES, Payload
from ..core.window import Entry
from ..proxies.task import TaskHandle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..comms.messages import Extra
    from ..core.call import Call
    from ..proxies.task import TaskProxy


class Worn(NamedTuple):
    """See the module.

    Attributes:
        payload: the arguments, but for the tasks among them.
        needs: of these, in order: the kind of handle, and the first uid.
    """

    call: Call
    payload: bytes | Payload
    extra: Extra | None
    needs: tuple[tuple[type[TaskHandle], int], ...] = ()

    @classmethod
    def of(cls, entry: Entry) -> Worn | None:
        """Of one that was sent; None: its arguments are not kept."""
        call, payload, extra, _ = entry
        if isinstance(payload, bytes):
            small = len(payload) <= LARGE_BYTES
            return cls(call, payload, extra) if small else None
        handles: tuple[Any, ...] = payload.handles
        if payload.nbytes > LARGE_BYTES or not all(
            isinstance(handle, TaskHandle) for handle in handles
        ):
            return None
        data, definitions, buffers = payload.data, payload.definitions, payload.buffers
        rest = Payload(data, (), definitions, buffers, outputs=payload.outputs)
        needs = tuple((type(h), h.proxy._call.first_uid) for h in handles)
        return cls(call, rest, extra, needs)

    def entry(self, proxies: Iterator[TaskProxy[Any]]) -> Entry:
        """To be sent again; ``proxies``: of its ``needs``, all of which are held."""
        payload = self.payload
        if isinstance(payload, Payload):
            payload.handles = tuple(kind(next(proxies)) for kind, _ in self.needs)
        return Entry(self.call, payload, self.extra)
