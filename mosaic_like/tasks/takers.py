"""Which calls take the values of which: by what their payloads mention.

How they are sent, and what follows when one ends, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.task import DONE, PREPARE
from ..proxies.task import TaskProxy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..core.dispatch import FunctionQueue
    from ..core.window import Entry

# Where a call was sent: by which queue, and the incarnation of the worker.
Sent = tuple["FunctionQueue", int, "Entry"]


def needs_of(payload: Any) -> Iterator[tuple[TaskProxy[Any], bool]]:
    """The tasks among arguments whose ends are waited for, and if any end will do."""
    for handle in getattr(payload, "handles", ()):
        proxy = getattr(handle, "proxy", None)
        if type(proxy) is not TaskProxy:  # it was put into the warehouse
            continue
        if handle.kind != wire.QUOTED:
            yield proxy, handle.kind == wire.ALLOWED
        elif proxy._call.state == PREPARE:  # it has no place yet where to ask for it
            yield proxy, True


def sent_takers(queues: Iterable[FunctionQueue], uids: Iterable[int]) -> list[Sent]:
    """The calls that were sent and have not ended, and take values of these.

    Args:
        queues: that have sent them.
        uids: the first ones of calls that have ended without a value.

    Returns:
        They, and those that take theirs; each after one that it takes, and once.
    """
    takers: dict[int, list[Sent]] = {}
    for queue in queues:
        for window in queue.windows.values():
            for entry in window.sent:
                if entry.call.state < DONE:
                    for proxy, any_end in needs_of(entry.payload):
                        if not any_end:
                            line = takers.setdefault(proxy._call.first_uid, [])
                            line.append((queue, window.owner, entry))
    found: dict[int, Sent] = {}
    gone = list(uids)
    for uid in gone:  # which grows
        for sent in takers.pop(uid, ()):
            taker = sent[2].call.first_uid
            if taker not in found:
                found[taker] = sent
                gone.append(taker)
    return list(found.values())
