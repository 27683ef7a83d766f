"""``mosaic.run``: it starts the fork server, and then imports what it needs itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..comms.frames import UNSEEN
from ..environment import CLUSTER, LOCAL
from .held import Held

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
        held = Held()
        early = None
        try:
            held.hold()
            from .early import Early

            no_cluster = os.environ.get(CLUSTER) or os.environ.get(LOCAL)
            early = None if no_cluster else Early.start()
            from .running import run_program

            return run_program(main, options, early, held)
        finally:
            if early is not None:
                early.end()
            held.let_go()
