"""``on_deadline``: what a program does when the time of its job is nearly over.

The signals that say so are taken by ``interrupts``; here is what runs then. How the
runtime writes down what it can by itself is in ``runtimes.saving``.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from .. import session
from ..comms.frames import hide_own

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

F = TypeVar("F", bound="Callable[[], Any]")


def on_deadline(function: F) -> F:
    """Have it called when this program's job is to end, before anything is stopped.

    That is when mrun, or the program, gets SIGTERM, SIGUSR1 or SIGUSR2: an engine sends
    one when the job is cancelled, or some time before its limit if it was asked to
    (``#SBATCH --signal=B:USR1@120``). All that was registered is called, one after the
    other, while the cluster works as before; then ``main`` is cancelled, and all ends
    in order. The exit code is 0 if all of it returned, 1 if one of them raised. If
    ``main`` itself returns meanwhile, that is how the program ends. Where
    ``checkpoint_directory`` names a directory, the last that is done is to write down
    all tesserae that are built again (``max_restarts``, ``__checkpoint__``).

    Args:
        function: without arguments; a coroutine function is awaited. Others hold the
            loop while they run.

    Returns:
        The function, so that this can be a decorator.

    Raises:
        TypeError: it cannot be called.
        RuntimeError: there is no runtime, or not that of ``mosaic.run(main)`` on the
            main thread: a program that keeps its signals to itself takes them itself.

    >>> import os, signal, asyncio
    >>> import mosaic_like as mosaic
    >>> async def main():
    ...     @mosaic.on_deadline
    ...     async def save():
    ...         print("saved")
    ...     os.kill(os.getpid(), signal.SIGUSR1)  # what an engine does
    ...     await asyncio.Event().wait()
    >>> try:
    ...     mosaic.run(main, num_workers=1)
    ... except SystemExit as end:
    ...     print(end.code)
    saved
    0
    """
    if not callable(function):
        raise TypeError(f"on_deadline takes a function, not {function!r}")
    hold = getattr(session.current(), "hold", None)  # a worker has none
    register = getattr(hold, "on_deadline", None)
    if register is None:
        raise RuntimeError(
            "on_deadline is for a program that was started by mosaic.run(main) on the "
            "main thread: this one keeps its signals to itself, so handle SIGTERM and "
            "SIGUSR1 in it"
        )
    register(function)
    return function


class Deadline:
    """The functions, and whether they have run."""

    def __init__(self) -> None:
        self.functions: list[Callable[[], Any]] = []
        # Writes down what it can by itself; gives lines for people.
        self.save: Callable[[], Awaitable[list[str]]] | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_met = False  # all have returned
        self._then: Callable[[], object] = lambda: None

    @property
    def is_wanted(self) -> bool:
        """There is something to do."""
        return bool(self.functions) or self.save is not None

    def start(self, then: Callable[[], object]) -> None:
        """On the loop; what is to be done then is done also if one raises."""
        self._then = then
        self.task = asyncio.ensure_future(self._run())

    def give_up(self) -> None:
        """Somebody is in a hurry."""
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        well = True
        # The last: the others may still change what is written down.
        for function in (*self.functions, self._save):
            try:
                found = function()
                if inspect.isawaitable(found):
                    await found
            except Exception as error:  # the others are called all the same
                well = False
                hide_own(error)
                traceback.print_exception(error, file=sys.stderr)
        self.is_met = well
        self._then()

    async def _save(self) -> None:
        if self.save is not None:
            for line in await self.save():
                print(f"mosaic: {line}", file=sys.stderr)
