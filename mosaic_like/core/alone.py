"""Which objects only their makers hold: the set that ``HolderTable`` asks for.

What a release of such an object does is decided in ``holders``; here is only where it
is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .archive import Archive
    from .task import Task
    from .tessera import Tessera


class Alone:
    """The objects that only their makers hold, as ``HolderTable`` has them.

    It is the objects themselves that know it: a set of a hundred thousand uids would
    be half as large as the tasks.
    """

    def __init__(
        self,
        tesserae: dict[int, Tessera],
        tasks: dict[int, Task],
        kept: dict[int, Any],
        archive: Archive,
    ) -> None:
        self._tesserae = tesserae
        self._tasks = tasks
        self._kept = kept
        self._archive = archive

    def _find(self, uid: int) -> Any:
        tasks, tesserae = self._tasks, self._tesserae
        return tasks.get(uid) or tesserae.get(uid) or self._kept.get(uid)

    def __contains__(self, uid: int) -> bool:
        thing = self._find(uid)
        return uid in self._archive if thing is None else not thing.shared

    def __iter__(self) -> Iterator[int]:
        for things in (self._tasks, self._tesserae, self._kept):
            yield from (uid for uid, thing in things.items() if not thing.shared)
        yield from self._archive

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, uid: int) -> None:
        thing = self._find(uid)
        if thing is not None:
            thing.shared = False

    def discard(self, uid: int) -> None:
        thing = self._find(uid) or self._archive.take_back(uid)
        if thing is not None:
            thing.shared = True
