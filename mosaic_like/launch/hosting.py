"""Runtimes that a program keeps: ``init``, ``interactive``, ``connect`` and ``stop``.

Where no loop runs, and always for ``interactive``, the runtime has a thread and a loop
of its own, since the user's loop stands still between prompts. ``await mosaic.init()``
and ``async with mosaic.init()`` use the loop that runs.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from .. import session
from ..config import Config
from ..environment import CLUSTER
from ..runtimes.loops import new_own_loop, on_a_loop
from . import local
from .ipython import watch_cells

if TYPE_CHECKING:
    from ..runtimes.head import Head

Begin = Callable[[], Coroutine[Any, Any, "Head"]]

_UNUSED = (
    "mosaic.{name}() was called on a running loop and not awaited: write 'async with "
    "mosaic.{name}(...)' or 'await mosaic.{name}(...)'; in a REPL or notebook 'await "
    'mosaic.interactive("on")\''
)


def init(**options: Any) -> Any:
    """Start a cluster that stays until ``stop``, or the program's end.

    In a plain program it returns the runtime, when all its workers are ready; proxies
    may then be used in any thread (``task.get()``). Where a loop runs it is to be
    awaited, or used by ``async with``, and uses that loop. While a runtime is there it
    gives the same one. Under ``mrun`` it joins the cluster that is there; the options,
    which are for a new one, then count for nothing.

    Args:
        options: of the cluster, such as ``num_workers``; see ``mosaic_like.config``.

    Raises:
        TypeError: an option is unknown.
        ValueError: an option has a value that is not allowed.
        NotImplementedError: an option asks for what is still to come.
        RuntimeError: a runtime is there, and these options are not its own: stop it
            first, or leave them out.
        ConnectError: the cluster did not start.
        OSError: this process may not have enough files open.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Counter:
    ...     def add(self, k): return k + 1
    >>> with mosaic.init(num_workers=1):
    ...     Counter.remote().add(5).get()
    6
    """
    config = Config.make(**options)  # a wrong one is told here

    def begin() -> Coroutine[Any, Any, Head]:
        return local.begin(options)

    return _enter("init", begin, options, config)


def on_a_thread(**options: Any) -> Any:
    """The runtime of this program, else a new one on a thread; stops at its end.

    As ``init``, but where a loop runs too, and without looking at other options.
    """
    with session.starting():
        found = session.peek()
        if found is not None:
            return found
        return _hosted(lambda: local.begin(options), Config.make(**options))


def connect(where: str | os.PathLike[str] | None = None) -> Any:
    """Join a cluster that runs, as one more head.

    ``async with mosaic.connect(key) as runtime``, ``await mosaic.connect(key)``, or in
    a plain program ``with mosaic.connect(key) as runtime``. Leaving releases what this
    program holds; the cluster goes on.

    Args:
        where: the key file, its directory, or the monitor's ipc address; ``"-"`` to
            read the key from standard input; None for what ``MOSAIC_CLUSTER`` names.
            The key of a cluster that has an ``address=`` is good on any host.

    Raises:
        ConnectError: within 5 s: there is no such cluster any more, or that is no key
            file of ours; ``mrun status`` shows those that run.
        RuntimeError: this program has a runtime already.

    >>> import subprocess, sys
    >>> program = "import mosaic_like as m; r = m.connect(); print(r.num_workers)"
    >>> mrun = [sys.executable, "-m", "mosaic_like", "-nw", "2"]  # sets MOSAIC_CLUSTER
    >>> command = [*mrun, sys.executable, "-c", program]
    >>> subprocess.run(command, capture_output=True, timeout=60).stdout
    b'2\\n'
    """
    if session.peek() is not None:
        raise RuntimeError(
            "this program has a runtime already; stop it by mosaic.stop() first"
        )

    def begin() -> Coroutine[Any, Any, Head]:
        return local.join(where)

    return _enter("connect", begin, {})


async def interactive(switch: str, **options: Any) -> Any:
    """In a REPL or notebook: ``await mosaic.interactive('on')``, and later ``'off'``.

    The runtime runs on a thread of its own, so calls go on while the prompt is idle.
    On while it is on gives the same runtime; off while it is off does nothing.

    Args:
        switch: ``'on'`` or ``'off'``.
        options: as for ``init``.

    Returns:
        The runtime, or None after ``'off'``.

    Raises:
        ValueError: any other word.
        RuntimeError: it is on, with other options: off first.
        ConnectError: the cluster did not start.

    >>> import asyncio, mosaic_like as mosaic
    >>> async def prompt():  # what one types
    ...     runtime = await mosaic.interactive("on", num_workers=1)
    ...     print(runtime)
    ...     await mosaic.interactive("off")
    >>> asyncio.run(prompt())
    <head · 1 worker>
    """
    if switch == "off":
        await stop()
        return None
    if switch != "on":
        raise ValueError(f"interactive({switch!r}): expected 'on' or 'off'")
    config = Config.make(**options)
    found = session.peek()
    if found is not None:
        return _same(found, options)
    local.check(config)
    host = _Host(lambda: local.begin(options))
    try:
        runtime = await asyncio.wrap_future(host.started)
    except asyncio.CancelledError:
        host.stop()
        raise
    watch_cells(runtime)
    return runtime


def stop() -> Any:
    """Stop the runtime of this program, with its cluster if it has started that one.

    In a plain program it returns when all is gone; where a loop runs it is to be
    awaited. Without a runtime it does nothing.

    Raises:
        RuntimeError: called in a worker, whose cluster is not its own.

    >>> import mosaic_like as mosaic
    >>> runtime = mosaic.init(num_workers=1)
    >>> stopped = mosaic.stop()
    >>> runtime
    <head · stopped>
    """
    runtime = session.peek()
    if runtime is None:
        session.use(None)  # one that was never awaited
        return _Nothing()
    hold = getattr(runtime, "hold", None)
    if hold is None:
        raise RuntimeError("a worker cannot stop its cluster; the program can")
    stopping = hold.stop()
    if not on_a_loop():
        stopping.wait()
        return _Nothing()
    return stopping


class _Nothing:
    """To be awaited where nothing is left to wait for."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

    def wait(self) -> None:
        pass


def _enter(
    name: str, begin: Begin, options: dict[str, Any], config: Config | None = None
) -> Any:
    """The runtime, or what gives it where a loop runs; ``config``: of a new cluster."""
    if on_a_loop():
        found = session.peek()
        if found is not None:
            _same(found, options)
        return Starting(name, begin, found)
    with session.starting():
        found = session.peek()
        if found is not None:
            return _same(found, options)
        return _hosted(begin, config)


def _hosted(begin: Begin, config: Config | None) -> Any:
    """The runtime on a thread of its own; where it does not start, none is left."""
    if config is not None:
        local.check(config)
    host = _Host(begin)
    try:
        return host.started.result()
    except BaseException:
        host.stop()
        host.join()
        raise


def _same(runtime: Any, options: dict[str, Any]) -> Any:
    """The runtime that is there, if it is as it was asked for."""
    config = runtime.config
    known = {option.name: option for option in Config.options()}
    differ = [
        f"{name} is {getattr(config, name)!r}, not {value!r}"
        for name, value in options.items()
        if name in known
        and value is not None
        and known[name].check(value) != getattr(config, name)
    ]
    # Under mrun they are for a cluster that is not to be started.
    if differ and not os.environ.get(CLUSTER):
        raise RuntimeError(
            f"a runtime is there already, with other options: {'; '.join(differ)}; "
            "stop it first by mosaic.stop()"
        )
    return runtime


class Starting:
    """What ``init`` and ``connect`` give where a loop runs: to be awaited.

    Until then it stands for the runtime, so that a forgotten ``await`` is told at the
    next use.
    """

    def __init__(self, name: str, begin: Begin, found: Any) -> None:
        self.unused: str | None = _UNUSED.format(name=name)
        self._begin = begin
        self._runtime = found
        self._is_ours = found is None
        if found is None:
            session.use(self)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._start().__await__()

    async def _start(self) -> Any:
        if self._runtime is None:
            session.forget(self)
            runtime = await self._begin()
            if session.peek() is not None:
                await runtime.hold.end()
                raise RuntimeError("two runtimes were started at once; one is enough")
            self._runtime = runtime
            session.use(runtime)
            last = _AtExit(runtime)
            runtime.hold.on_end = last.cancel
            watch_cells(runtime)
        return self._runtime

    async def __aenter__(self) -> Any:
        return await self._start()

    async def __aexit__(self, *_: object) -> None:
        if self._is_ours:
            await self._runtime.hold.stop()

    def __enter__(self) -> Any:
        raise RuntimeError(self.unused)

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._runtime is None:
            raise RuntimeError(self.unused)
        return getattr(self._runtime, name)


class _AtExit:
    """Stops a runtime on a loop of the user's that is not running any more."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._maker = os.getpid()
        atexit.register(self._stop)

    def cancel(self) -> None:
        atexit.unregister(self._stop)

    def _stop(self) -> None:
        if os.getpid() != self._maker:
            return
        hold, loop = self._runtime.hold, self._runtime.loop
        if not loop.is_closed() and not loop.is_running():
            loop.run_until_complete(hold.end())
            return
        # Nobody can speak to the cluster any more.
        if hold.cluster is not None:
            hold.cluster.kill()
            hold.cluster.tidy_up(2.0)


class _Host:
    """A thread with a loop that a runtime has for itself."""

    def __init__(self, begin: Begin) -> None:
        self.started: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._begin = begin
        self._maker = os.getpid()
        self._loop = new_own_loop()
        self._task: asyncio.Task[Any] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._is_asked = False
        # A daemon, since Python waits for all others before it calls what is
        # registered with atexit.
        self._thread = threading.Thread(
            target=self._serve, name="mosaic runtime", daemon=True
        )
        atexit.register(self._at_exit)
        try:
            self._thread.start()
        except RuntimeError as error:
            atexit.unregister(self._at_exit)
            self._loop.close()
            raise RuntimeError(
                "a runtime that stays needs a thread of its own, and gets none: "
                f"{error}; see `ulimit -u`, and pids.max of the control group"
            ) from None

    def _serve(self) -> None:
        loop = self._loop
        try:
            loop.run_until_complete(self._live())
        finally:
            loop.close()
            atexit.unregister(self._at_exit)

    async def _live(self) -> None:
        self._task = asyncio.ensure_future(self._begin())
        if self._is_asked:
            self._task.cancel()
        try:
            head = await self._task
        except BaseException as error:
            self.started.set_exception(error)
            return
        head.hold.on_end = self._on_end
        head.hold.join = self.join
        session.use(head)
        self.started.set_result(head)
        await self._ended

    def _on_end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def stop(self) -> None:
        """End it, also while it starts; from any thread, returning at once."""
        self._is_asked = True
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._task is None:
            return  # it looks itself
        if not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled() and self._task.exception() is None:
            self._task.result().hold.stop()

    def join(self, timeout_s: float = 60.0) -> None:
        """Wait for the end of the thread."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _at_exit(self) -> None:
        if os.getpid() == self._maker and self._thread.is_alive():
            self.stop()
            self.join()
