"""Which runtime is the current one: the only mutable state of any module.

In a head it is set by ``init``, ``run``, ``interactive`` and ``connect``; in a worker
by the worker itself. Nothing else may be kept here.
"""

from __future__ import annotations

import os
import threading
from typing import Any


class _Slot:
    runtime: Any = None
    # Held while one is started for the whole process, so that two threads that do it
    # at once get the same one.
    lock = threading.RLock()
    watches_forks = False


_slot = _Slot()


def current() -> Any:
    """The current runtime.

    Raises:
        RuntimeError: there is none; start one with ``mosaic.run``, ``mosaic.init`` or
            ``await mosaic.interactive('on')``.

    >>> import mosaic_like as mosaic
    >>> async def main():
    ...     return mosaic.runtime().num_workers
    >>> mosaic.run(main, num_workers=1)
    1
    """
    runtime = _slot.runtime
    if runtime is None:
        raise RuntimeError(
            "there is no runtime here: run the program by mosaic.run(main), call "
            "mosaic.init(), or in a REPL or notebook await mosaic.interactive('on')"
        )
    if runtime.unused is not None:
        raise RuntimeError(runtime.unused)
    return runtime


def peek() -> Any:
    """The current runtime, or None; one that was not awaited does not count."""
    runtime = _slot.runtime
    return None if runtime is None or runtime.unused is not None else runtime


def use(runtime: Any) -> None:
    """Make it the current one; None: there is none any more."""
    _slot.runtime = runtime
    if runtime is not None and not _slot.watches_forks:
        _slot.watches_forks = True
        os.register_at_fork(after_in_child=_forked)


def replace(runtime: Any) -> Any:
    """Make it the current one for a while; gives the one before, if there was any."""
    before = _slot.runtime
    use(runtime)
    return before


def _forked() -> None:
    """In a child that the program forked: the runtime is its parent's."""
    runtime = _slot.runtime
    _slot.runtime = None
    _slot.lock = threading.RLock()  # a thread that is not here may have held it
    if runtime is not None and runtime.unused is None:
        runtime.forked()


def forget(runtime: Any) -> None:
    """It has ended: if it is the current one, there is none any more."""
    if _slot.runtime is runtime:
        _slot.runtime = None


def starting() -> threading.RLock:
    """To be held while the process gets its runtime."""
    return _slot.lock
