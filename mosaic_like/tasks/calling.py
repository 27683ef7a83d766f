"""What runs in the workers for an ``Executor``: one call, or a chunk of a ``map``."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

from ..errors import MosaicError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class InitializerError(MosaicError, concurrent.futures.BrokenExecutor):
    """The initializer of an ``Executor`` has raised: make one with another."""


class Caller:
    """Calls functions, after an initializer that is called once in each process.

    Args:
        initializer: a function, or None.
        initargs: its arguments.
    """

    def __init__(
        self, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]
    ) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._error = ""

    def _initialize(self) -> None:
        if self._error:
            raise InitializerError(self._error)
        initializer, self._initializer = self._initializer, None
        assert initializer is not None, "asked for"
        try:
            initializer(*self._initargs)
        except BaseException as error:
            self._initializer = initializer
            self._error = (
                f"the initializer {initializer!r} raised {type(error).__name__}: "
                f"{error}; no call runs where it fails"
            )
            raise InitializerError(self._error) from error

    def __call__(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if self._initializer is not None:
            self._initialize()
        return fn(*args, **kwargs)


def call_chunk(fn: Callable[..., Any], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Several calls of a ``map``, one after the other."""
    values = []
    for row in rows:  # a comprehension would be a frame of its own
        values.append(fn(*row))  # noqa: PERF401 -- for the frame
    return values


# A call that runs in them can be stopped: see runtimes.interrupts.
PASSING = (Caller.__call__.__code__, call_chunk.__code__)
