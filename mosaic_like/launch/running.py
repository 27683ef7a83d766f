"""A program's life on a loop of its own: what ``mosaic.run`` does.

Start, main and end are three runs of one loop, so that whatever main does to it, even
SystemExit out of any task, the end still comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import os
import reprlib
from typing import TYPE_CHECKING, Any

from .. import session
from ..comms.frames import hide_own
from ..config import Config
from ..errors import TaskCancelledError
from ..runtimes.loops import new_loop
from . import alone, local
from .held import Held
from .interrupts import Interrupts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..runtimes.head import Head
    from .cluster import Cluster
    from .early import Early

_LEFT_OVER_S = 1.0  # that tasks of a program that was interrupted have for their end


def run_program(
    main: Callable[..., Awaitable[Any]],
    options: dict[str, Any],
    early: Early | None = None,
    held: Held | None = None,
) -> Any:
    """What ``run.run`` does.

    Args:
        main, options: as there.
        early: what was started already for its cluster.
        held: signals that are let go when they are handled in order.
    """
    config = Config.make(**options)  # a wrong one is told before all else
    _check(main)
    local.check(config)
    held = held or Held()
    loop = new_loop()
    program = _Program(loop, early)
    try:
        try:
            program.interrupts.install(held)
            held.let_go()  # a handler of the user's may raise here
            return program.run(main, options)
        finally:
            program.interrupts.remove()
    finally:
        # Whoever was forked inside main and comes out here has the same loop, and
        # closing it would unregister what the parent waits for.
        if program.is_mine:
            loop.close()


def _check(main: Any) -> None:
    if inspect.iscoroutine(main):
        main.close()
        raise TypeError(
            "run() takes a coroutine function, not a coroutine: pass main, not main()"
        )
    if not callable(main):
        raise TypeError(f"run() takes a coroutine function, not {main!r}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "a loop runs in this thread already: write 'async with mosaic.init()', or "
            "in a REPL or notebook 'await mosaic.interactive(\"on\")'"
        )
    if session.peek() is not None:
        raise RuntimeError(
            "this process has a runtime already: stop it by mosaic.stop() before "
            "mosaic.run(main), or call main's code with it"
        )


class _Program:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, early: Early | None = None
    ) -> None:
        self._loop = loop
        self._early = early
        self._context = contextvars.copy_context()
        self._maker = os.getpid()
        self.interrupts = Interrupts(loop)

    @property
    def is_mine(self) -> bool:
        """This is not a fork of the process that runs it."""
        return os.getpid() == self._maker

    def run(self, main: Callable[..., Awaitable[Any]], options: dict[str, Any]) -> Any:
        interrupts = self.interrupts
        try:
            head = self._perform(self._start(options))
        except asyncio.CancelledError:
            if interrupts.count:
                raise interrupts.exception from None
            raise
        try:
            return self._main(main, head)
        except (asyncio.CancelledError, TaskCancelledError, KeyboardInterrupt):
            if interrupts.count:
                raise interrupts.exception from None
            raise
        finally:
            if self.is_mine:
                interrupts.task = None
                self._end_left_over(head, _LEFT_OVER_S if interrupts.count else None)
                self._loop.run_until_complete(head.hold.end())
                session.forget(head)

    async def _start(self, options: dict[str, Any]) -> Head:
        head = await local.begin(options, self._made, self._early)
        session.use(head)
        self.interrupts.head = head
        head.hold.on_deadline = self.interrupts.on_deadline
        if head.config.checkpoint_directory is not None and not alone.is_wanted():
            self.interrupts.save_at_deadline(head.save_checkpoints)
        return head

    def _made(self, cluster: Cluster) -> None:
        self.interrupts.cluster = cluster

    def _perform(self, coroutine: Any) -> Any:
        task = self._loop.create_task(coroutine, context=self._context)
        self.interrupts.task = task
        return self._loop.run_until_complete(task)

    def _main(self, main: Callable[..., Awaitable[Any]], head: Head) -> Any:
        interrupts = self.interrupts
        task = self._loop.create_task(_call(main, head), context=self._context)
        interrupts.task = task
        interrupts.in_main = True
        if interrupts.count:  # it came between the two
            task.cancel()
        given_up = interrupts.given_up
        try:
            self._loop.run_until_complete(_first(task, given_up))
            saving = interrupts.deadline.task
            if saving is not None:  # main ended by itself
                self._loop.run_until_complete(_first(saving, given_up))
            if not task.done():
                task.cancel()
                raise interrupts.exception
            return task.result()
        finally:
            interrupts.in_main = False
            if task.done() and not task.cancelled():
                task.exception()  # raised already, or let out of the loop

    def _end_left_over(self, head: Head, timeout_s: float | None) -> None:
        """Cancel what main has left running, as asyncio.run does."""
        loop = self._loop
        left = asyncio.all_tasks(loop) - {head.hold.ending}
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=timeout_s))
        for task in left:
            if not task.done():
                # Given up, which was said: that it never ended is no news.
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch
            elif not task.cancelled() and (error := task.exception()) is not None:
                hide_own(error)
                loop.call_exception_handler(
                    {
                        "message": "unhandled exception in a task that main left",
                        "exception": error,
                        "task": task,
                    }
                )
        loop.run_until_complete(loop.shutdown_asyncgens())
        with contextlib.suppress(TimeoutError):
            loop.run_until_complete(
                asyncio.wait_for(loop.shutdown_default_executor(), timeout_s)
            )


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when="FIRST_COMPLETED")


async def _call(main: Callable[..., Awaitable[Any]], head: Head) -> Any:
    given: Any = main(head) if _takes_runtime(main) else main()
    if not inspect.isawaitable(given):
        name = getattr(main, "__qualname__", None) or repr(main)
        raise TypeError(
            f"run(main) takes a coroutine function: main is {name}, which returned "
            f"{reprlib.repr(given)}, and that cannot be awaited; write 'async def', or "
            "return what a coroutine function gives"
        )
    return await given


def _takes_runtime(main: Callable[..., Awaitable[Any]]) -> bool:
    try:
        parameters = inspect.signature(main).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
        for p in parameters
    )
