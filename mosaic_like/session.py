"""Which runtime is the current one: the only mutable state of any module.

In a head it is set by ``init``, ``run``, ``interactive`` and ``connect``; in a worker
by the worker itself. Nothing else may be kept here.
"""

from __future__ import annotations

from typing import Any


class _Slot:
    runtime: Any = None


_slot = _Slot()


def current() -> Any:
    """The current runtime.

    Raises:
        RuntimeError: there is none; start one with ``mosaic.run``, ``mosaic.init`` or
            ``await mosaic.interactive('on')``.
    """
    runtime = _slot.runtime
    if runtime is None:
        raise RuntimeError(
            "there is no runtime here: run the program by mosaic.run(main), call "
            "mosaic.init(), or in a REPL or notebook await mosaic.interactive('on')"
        )
    if runtime.unused is not None:
        runtime.check_used()
    return runtime


def peek() -> Any:
    """The current runtime, or None."""
    return _slot.runtime


def use(runtime: Any) -> None:
    """Make it the current one; None: there is none any more."""
    _slot.runtime = runtime
