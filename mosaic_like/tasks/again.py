"""A function task that has ended and is to go again: if it can, and its call made new.

Which of them go, and when, is in ``connections``. For the runtime's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..comms.messages import Extra
from ..comms.serialization import LARGE_BYTES
from ..core.call import HELD, NEVER_IN_LINE, Call, rare
from ..core.dependencies import LOST
from ..core.task import PENDING
from ..sizes import size_text
from .prepared import Prepared
from .worn import Worn

if TYPE_CHECKING:
    from collections.abc import Container

    from ..core.dependencies import Dependencies
    from ..core.dispatch import FunctionQueue
    from ..core.window import Entry


def check_kept(
    call: Call,
    kept: Prepared | Entry | Worn | None,
    held: Container[int],
    known: Dependencies,
) -> None:
    """Raise TypeError for a call that cannot go again; the text says why.

    Args:
        call: that has ended.
        kept: of it; None: nothing.
        held: the first uids of all whose proxies are held.
        known: what waits for what.
    """
    why = advice = ""
    if kept is None and call.reason == LOST and call.stream.queue is not None:
        why = (
            "its value is lost, and its arguments were not kept, which is done "
            f"only up to {size_text(LARGE_BYTES)} and without a policy"
        )
        advice = "submit it again"
    elif kept is None:
        why = "only function tasks that this runtime has submitted can"
        advice = (
            "submit it again, or call the method again, whose tessera may be in "
            "another state now"
        )
    elif type(kept) is Worn:
        gone = [uid for _, uid in kept.needs if uid not in held]
        if gone:
            label = known.members[gone[0]].label
            why = f"its value is lost, and nobody holds {label}, which it takes"
            advice = "submit both again"
    if why:
        raise TypeError(f"{call.name} cannot be retried: {why}; {advice}")


def reset(runtime: Any, call: Call) -> None:
    """It is pending, and nothing of the end that it had is left."""
    item = rare(call)
    runtime.unheard_failures.again(call)
    runtime.observing.keep(call)
    runtime.release(call)
    call.state, call.result, call.settled_s = PENDING, None, 0.0
    item.earlier, item.attempt = item.earlier + item.attempt, 1
    item.reason = "retry"
    item.running_s = item.told = item.error = item.value = None
    item.cached = item.fetched = item.unheard = False


def renewed(
    runtime: Any,
    call: Call,
    kept: Prepared | Entry | Worn,
    queue: FunctionQueue,
) -> Prepared | Entry:
    """What is to be sent, under another uid; the call is held back until then."""
    assert not isinstance(kept, Worn), "its arguments were put together before"
    item, uid = rare(call), call.first_uid
    item.first_uid = uid
    call.hold, call.stream, call.line = HELD, queue.unplaced, NEVER_IN_LINE
    before, call.uid = call.uid, next(runtime.uids)
    runtime.observing.renamed(call, before)
    # It may hold what was said of the attempt before.
    extra = kept.extra or Extra()
    extra = msgspec.structs.replace(extra, attempt=0, retried=(uid, item.earlier))
    queue.hold(call, None)
    if not isinstance(kept, Prepared):
        return kept._replace(extra=extra)
    kept.extra = extra
    return kept
