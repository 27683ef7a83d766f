"""What function tasks take, and near which worker most of it is.

Nothing is moved here: a task goes to what is near it, if there is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms.messages import ALLOWED, TASK
from .payloads import Arrived

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .call import Call
    from .window import Window

_AWAITED = (TASK, ALLOWED)
NEAR_BYTES = 256 << 10  # of arguments that stayed at a worker: worth a look


def arguments_of(payload: Any) -> list[Call]:
    """The tasks that a payload takes the values of."""
    return [
        handle.proxy._call
        for handle in payload.handles
        if handle.kind in _AWAITED and getattr(handle, "proxy", None) is not None
    ]


def nearest(payload: Any, windows: Iterable[Window]) -> Window | None:
    """The worker with room where most of the large arguments are; None: there is none.

    If it has no room, one of its host has them nearly as near.

    Args:
        payload: of a task, whose arguments have ended.
        windows: of all workers.
    """
    sizes: dict[int, int] = {}
    for call in arguments_of(payload):
        result = call.result
        if type(result) is Arrived and result.size:
            owner = call.stream.owner
            sizes[owner] = sizes.get(owner, 0) + result.size
    if not sizes:
        return None
    on_host: dict[str, int] = {}
    free: list[Window] = []
    for window in windows:
        size = sizes.get(window.owner, 0)
        on_host[window.machine] = on_host.get(window.machine, 0) + size
        if window.has_room:
            free.append(window)
    near = [window for window in free if sizes.get(window.owner, 0) >= NEAR_BYTES]
    if near:
        return max(near, key=lambda window: sizes[window.owner])
    near = [window for window in free if on_host[window.machine] >= NEAR_BYTES]
    # The most bytes first, then the least to do.
    return max(
        near,
        key=lambda window: (on_host[window.machine], -window.load),
        default=None,
    )
