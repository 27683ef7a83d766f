"""What one runtime knows of the root of a parameter, for all copies that it has of it.

What a copy itself has is in ``replica``. The record of tasks is in ``records``.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .root import Reply
    from .task import TaskProxy


class Record:
    """What one runtime knows of one root; as long as there are copies."""

    __slots__ = ("__weakref__", "newest", "news", "published", "snapshot")

    def __init__(self) -> None:
        self.newest: dict[str, int] = {}
        self.news = 0  # counts what may have changed the root
        # Of each attribute that was published to here: its version, and its value, or
        # None if it was deleted.
        self.published: dict[str, tuple[int, _Stored | None]] = {}
        self.snapshot: tuple[int, TaskProxy[Reply]] | None = None

    def published_here(self, reply: Reply) -> None:
        versions, values, _ = reply
        self.news += 1
        for name, version in versions.items():
            self.newest[name] = max(version, self.newest.get(name, 0))
            try:
                stored = _Stored(values[name]) if name in values else None
            except Exception:
                continue  # tesserae in it: who pulls asks the root for it
            self.published[name] = version, stored


class _Stored:
    """A value to be given to several copies, none of which may see another's changes.

    What nobody can write is shared.
    """

    __slots__ = ("_buffers", "_data")

    def __init__(self, value: Any) -> None:
        self._buffers: list[memoryview] = []
        self._data = pickle.dumps(value, 5, buffer_callback=self._set_aside)

    def _set_aside(self, buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.readonly:
            self._buffers.append(view)
        return not view.readonly

    def load(self) -> Any:
        return pickle.loads(self._data, buffers=self._buffers)
