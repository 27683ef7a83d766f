"""Ctrl-C at a prompt of IPython: it cancels what the cell awaited.

IPython shows KeyboardInterrupt and leaves the cell's coroutine where it stood, so that
it would go on inside a later cell that awaits something. While there is a runtime, such
a cell is cancelled before the next prompt. Jupyter's kernel does so by itself. IPython
itself is not changed: this uses the callbacks that it offers.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from .. import session

_END_S = 5.0  # that a cell has for its end, which may be that of a cluster


def watch_cells(runtime: Any) -> None:
    """Cancel cells that Ctrl-C leaves, while this is the runtime; else do nothing.

    To be called in a cell, on the loop that runs it.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        _Cells(shell, runtime).start()


class _Cells:
    def __init__(self, shell: Any, runtime: Any) -> None:
        self._shell = shell
        self._runtime = runtime
        self._cell = asyncio.current_task()

    def start(self) -> None:
        events = self._shell.events
        events.register("pre_run_cell", self._begin)
        events.register("post_run_cell", self._end)

    def _stop(self) -> None:
        events = self._shell.events
        events.unregister("pre_run_cell", self._begin)
        events.unregister("post_run_cell", self._end)

    def _begin(self, info: Any) -> None:
        try:
            self._cell = asyncio.current_task()
        except RuntimeError:  # it awaits nothing, and so runs on no loop
            self._cell = None

    def _end(self, result: Any) -> None:
        cell, self._cell = self._cell, None
        if session.peek() is not self._runtime:
            self._stop()
        if cell is None or cell.done():
            return
        loop = cell.get_loop()
        if loop.is_running() or loop.is_closed():
            return  # a kernel calls this while the cell's task still runs
        shell = self._shell
        shown = shell.custom_exceptions, shell.CustomTB
        # That it was interrupted has been shown; what else it raises still is.
        shell.set_custom_exc((asyncio.CancelledError,), _show_nothing)
        try:
            cell.cancel()
            loop.run_until_complete(asyncio.wait((cell,), timeout=_END_S))
        finally:
            shell.custom_exceptions, shell.CustomTB = shown


def _show_nothing(shell: Any, kind: Any, error: Any, tb: Any, tb_offset: Any) -> None:
    """In place of a traceback."""
