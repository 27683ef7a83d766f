"""``mosaic.run``: it starts the fork server, and then imports what it needs itself."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from ..comms.frames import UNSEEN
from ..environment import CLUSTER
from .early import Early

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(main: Callable[..., Awaitable[Any]], **options: Any) -> Any:
    """Run a coroutine function with a cluster of its own, and give what it returns.

    Under ``mrun`` (``MOSAIC_CLUSTER`` is set) the program joins the cluster that is
    there, as a head; the options, which are for a new one, then count for nothing.

    Args:
        main: called with the runtime, or with nothing if it takes nothing.
        options: of the cluster, such as ``num_workers``; see ``mosaic_like.config``.

    Raises:
        TypeError: an option is unknown, or main is no coroutine function.
        ConnectError: the cluster did not start.
        RuntimeError: a loop or a runtime runs here already.
        KeyboardInterrupt: Ctrl-C, and main let itself be cancelled; a script then ends
            with 130, without a traceback.

    >>> async def main():
    ...     return 6 * 7
    >>> run(main, num_workers=1)
    42
    """
    with UNSEEN:
        signals = _Signals()
        early = None
        try:
            early = None if os.environ.get(CLUSTER) else Early.start()
            from .running import run_program

            return run_program(main, options, early, signals.let_go)
        finally:
            if early is not None:
                early.end()
            signals.let_go()


class _Signals:
    """Holds what would end the program back, until there is who ends it in order."""

    def __init__(self) -> None:
        self._before: set[int] | None = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        except BaseException:  # for one that came before, when it had held them
            self.let_go()
            raise

    def let_go(self) -> None:
        """What has come is handled now; only the first time, the mask is the user's."""
        before, self._before = self._before, None
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
