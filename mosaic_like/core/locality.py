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
    near = [
        window
        for window in windows
        if sizes.get(window.owner, 0) >= NEAR_BYTES and window.has_room
    ]
    return max(near, key=lambda window: sizes[window.owner], default=None)
