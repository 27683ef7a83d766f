"""Values that are there already: the keys under which tasks are known again.

``Cache`` is what one process remembers of its tasks; it has no clock, and does not know
what a task is. Keys are kept apart by task and version, so that two tasks never share a
value by accident. What is on disk is the matter of ``storage``.

    unknown        begin -> RUN      the caller runs it, others wait for it
    running        begin -> REUSED   end: known if it has a value, else unknown again
    known          begin -> CACHED   after its time, or if it is gone: as unknown
"""

from __future__ import annotations

import datetime
import enum
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from .digest import Unhashable, digest_of

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Iterable, Mapping

MOST_ENTRIES = 10_000  # values that one process keeps alive for its tasks
REFRESH_VARIABLE = "MOSAIC_REFRESH_CACHE"


class Hit(enum.IntEnum):
    """What a cache says of a key."""

    RUN = 0
    REUSED = 1  # the same is running
    CACHED = 2  # it has run


class CacheInfo(NamedTuple):
    """What ``task.cache_info()`` gives: counts of this process."""

    hits: int
    reused: int
    misses: int
    size: int


class Entry:
    """One value that is here or is being made."""

    __slots__ = ("running", "task", "until_s")

    def __init__(self, task: Any) -> None:
        self.task = task
        self.running = True
        self.until_s: float | None = None


class Cache:
    """The values of one task, by key, the oldest first."""

    __slots__ = ("_counts", "_entries", "_most")

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._counts = [0, 0, 0]  # by Hit
        self._most = most

    def begin(
        self,
        key: str,
        task: Any,
        now_s: float,
        *,
        refresh: bool = False,
        is_there: Callable[[Any], bool] = lambda task: True,
    ) -> tuple[Hit, Any]:
        """A call with this key is made.

        Args:
            key: of its inputs.
            task: that runs if there is nothing under the key.
            now_s: of the clock that ``end`` is told.
            refresh: what is under the key does not count.
            is_there: whether the value of a task that has one can still be had.

        Returns:
            What to do, and the task that runs or has the value.
        """
        entry = self._entries.get(key)
        if entry is not None and not refresh:
            if entry.running:
                return self._counted(Hit.REUSED, entry.task)
            over = entry.until_s is not None and entry.until_s <= now_s
            if not over and is_there(entry.task):
                self._entries.move_to_end(key)
                return self._counted(Hit.CACHED, entry.task)
        self._entries[key] = Entry(task)
        self._entries.move_to_end(key)
        return self._counted(Hit.RUN, task)

    def _counted(self, hit: Hit, task: Any) -> tuple[Hit, Any]:
        self._counts[hit] += 1
        return hit, task

    def end(
        self,
        key: str,
        task: Any,
        now_s: float,
        *,
        has_value: bool,
        expiration_s: float | None = None,
    ) -> None:
        """A task that ``begin`` let run has ended; what has no value is forgotten."""
        entry = self._entries.get(key)
        if entry is None or entry.task is not task:
            return  # cleared meanwhile, or refreshed by another
        if not has_value:
            del self._entries[key]
            return
        entry.running = False
        entry.until_s = None if expiration_s is None else now_s + expiration_s
        for old in list(self._entries):
            if len(self._entries) <= self._most:
                break
            if not self._entries[old].running:
                del self._entries[old]

    def clear(self) -> None:
        """Forget all of it; what runs goes on, and is not remembered."""
        self._entries.clear()
        self._counts = [0, 0, 0]

    @property
    def info(self) -> CacheInfo:
        counts = self._counts
        return CacheInfo(
            counts[Hit.CACHED], counts[Hit.REUSED], counts[Hit.RUN], len(self._entries)
        )


class InputHash:
    """The key that ``cache_key="inputs"`` stands for; made by ``input_hash``."""

    __slots__ = ("ignore",)

    def __init__(self, ignore: Iterable[str] = ()) -> None:
        self.ignore = tuple(ignore)

    def __call__(self, context: Any, parameters: Mapping[str, Any]) -> str | None:
        """The digest of the arguments and of the code; None: one has no content."""
        return self.key(context.task.fn, parameters, getattr(context, "identity", None))

    def key(
        self,
        function: Any,
        parameters: Mapping[str, Any],
        identity: Callable[[Any], Any] | None = None,
        refused: Callable[[str], Any] = lambda why: None,
    ) -> str | None:
        """The same, for who has no context; ``refused`` is told why there is none."""
        digests = []
        try:
            digests.append(digest_of(function))
        except Unhashable as error:
            refused(f"its code: {error}")
            return None
        for name, value in parameters.items():
            if name in self.ignore:
                continue
            try:
                digests.append(f"{name}={digest_of(value, identity)}")
            except Unhashable as error:
                refused(f"its argument {name!r}: {error}")
                return None
        return digest_of(digests)

    def check(self, name: str, signature: inspect.Signature) -> None:
        """Raise ValueError for a name that the function does not have."""
        unknown = [n for n in self.ignore if n not in signature.parameters]
        if unknown:
            raise ValueError(
                f"input_hash(ignore={self.ignore!r}): {name}{signature} has no "
                f"parameter {', '.join(map(repr, unknown))}"
            )

    def __repr__(self) -> str:
        return f"input_hash(ignore={self.ignore!r})"


@overload
def input_hash(*, ignore: Iterable[str] = ()) -> InputHash: ...
@overload
def input_hash(context: Any, parameters: Mapping[str, Any], /) -> str | None: ...
def input_hash(
    context: Any = None,
    parameters: Mapping[str, Any] | None = None,
    /,
    *,
    ignore: Iterable[str] = (),
) -> InputHash | str | None:
    """The key of a call by its arguments and by the code of its function.

    As ``cache_key="inputs"``; with names, without these. Arguments count by what is in
    them: the order of a dict or set does not, arrays do by their bytes, tasks by the
    run that made their value. An argument that has no content, such as a lock, means
    that the call is not cached, with one warning. Of the function the bytecode, the
    constants, names, defaults and closure count, not its file and line. Functions that
    it calls, and global variables that it reads, count by their names alone: give the
    task another ``version`` when these have changed, or pass them as arguments. Classes
    of ``__main__``, notebooks and functions count by their bases, methods, properties
    and attributes; define such a class anew rather than change it, as the workers keep
    it as it was when it was first sent.

    Args:
        context: of the call, if this is called by a ``cache_key`` of your own.
        parameters: the arguments by name, defaults filled in.
        ignore: names of parameters that do not count.

    Raises:
        ValueError: at decoration: the function has no parameter of such a name.

    >>> input_hash(ignore=("verbose",))
    input_hash(ignore=('verbose',))
    """
    if parameters is not None:
        return InputHash(ignore)(context, parameters)
    if isinstance(ignore, str):
        raise TypeError(f"ignore={ignore!r}: expected names, such as ({ignore!r},)")
    return InputHash(ignore)


def key_function(option: Any) -> Any:
    """The option ``cache_key``: None, or a function of context and parameters.

    Raises:
        TypeError: it is no function.
        ValueError: a text that is not "inputs".
    """
    if option is input_hash or option == "inputs":
        return InputHash()
    if isinstance(option, str):
        raise ValueError(
            f"option 'cache_key': found {option!r}, expected 'inputs', a function "
            "(context, parameters) -> str | None, or None"
        )
    if option is not None and not callable(option):
        raise TypeError(
            f"option 'cache_key': found {option!r}, expected 'inputs', a function "
            "(context, parameters) -> str | None, or None"
        )
    return option


def expiration_of(value: Any) -> float | None:
    """The option ``cache_expiration`` in seconds; None: never.

    Raises:
        TypeError: neither a number nor a timedelta.
        ValueError: not more than 0.
    """
    if value is None:
        return None
    seconds = value
    if isinstance(value, datetime.timedelta):
        seconds = value.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(
            f"option 'cache_expiration': found {value!r}, expected seconds, a "
            "timedelta, or None for ever"
        )
    if not seconds > 0:  # nan too
        raise ValueError(
            f"option 'cache_expiration': found {value!r}, expected more than 0 "
            "seconds, or None for ever"
        )
    return float(seconds)


def refreshes(option: bool | None) -> bool:
    """Whether what is cached does not count; None: as the environment says."""
    if option is not None:
        return option
    return os.environ.get(REFRESH_VARIABLE, "").lower() in ("1", "true", "yes", "on")


def checked_key(key: Any, name: str) -> str | None:
    """What a ``cache_key`` function gave.

    Raises:
        TypeError: neither a text nor None.
    """
    if key is not None and not isinstance(key, str):
        raise TypeError(
            f"the cache_key of {name} gave {key!r}, expected a str, or None for no "
            "caching"
        )
    return key
