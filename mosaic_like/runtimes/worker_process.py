"""The process of a worker: loop on a background thread, plain methods on the main one.

How it starts, what a signal and ``os._exit`` do in it, and what a child that user code
forks keeps of it. What a worker does is in ``worker``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING, NoReturn

from .. import session
from ..config import Config
from .job_signals import leave_to_owner, leave_to_program
from .journal import paths
from .loops import allow_open_files, new_own_loop
from .spec import Spec, decode
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.task import Task

# The thread that runs user code gives way to the loop's after this long.
SWITCH_INTERVAL_S = 0.0005
_OPEN_FILES = 1 << 16  # at most: programs that user code starts get this limit, too
_PERF = 19
_LINES = 1  # _IOLBF of Linux


def main(argument: bytes, fds: list[int], control: int | None) -> None:
    """The entry of the forked process; on its main thread."""
    spec = decode(argument)
    sys.path[:] = spec.path
    if spec.cwd:
        try:
            os.chdir(spec.cwd)
        except OSError as error:
            print(f"mosaic: {spec.uid}: {error}", file=sys.stderr)
    config = Config.from_bytes(spec.config)
    if config.in_job:
        leave_to_program()
    else:
        leave_to_owner()
    if spec.cores:  # all threads of this process will have them
        with contextlib.suppress(OSError):  # taken from the job meanwhile
            os.sched_setaffinity(0, spec.cores)
    if config.worker_gc_threshold:
        gc.set_threshold(config.worker_gc_threshold, 20, 50)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    allow_open_files(_OPEN_FILES)
    _print_lines()
    with contextlib.suppress(OSError):  # a full disk
        fault = open(paths(spec.directory, os.getpid())[1], "w")  # noqa: SIM115
        faulthandler.enable(fault)
    leave = os._exit
    start = _Start()
    os.register_at_fork(after_in_child=lambda: _forked(start.worker, leave))
    thread = threading.Thread(target=_serve, args=(spec, start), name="mosaic loop")
    thread.start()
    start.ready.wait()
    if start.worker is not None:
        if not config.in_job:
            _take_sigterm(start.worker)
        os._exit = _exit_of(start.worker)  # type: ignore[assignment]  # it returns to nobody either
    if start.worker is not None and not start.failed:
        _give_way()
        start.worker.executor.main.run_forever()
    thread.join(5.0)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    leave(1 if start.failed else 0)


def _print_lines() -> None:
    """Have C code print each line when it ends: it would gather them for a pipe."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    with contextlib.suppress(ValueError):  # another libc calls it something else
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINES, 0)


class _Start:
    """What the loop's thread tells the main thread."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.worker: Worker | None = None
        self.failed = False


def _serve(spec: Spec, start: _Start) -> None:
    """The loop's thread."""
    try:
        with asyncio.Runner(loop_factory=new_own_loop) as runner:
            runner.run(_run(runner.get_loop(), spec, start))
    except BaseException:
        start.failed = True
        traceback.print_exc(file=sys.__stderr__)
    finally:
        start.ready.set()
        if start.worker is not None:
            start.worker.executor.stop()


async def _run(loop: asyncio.AbstractEventLoop, spec: Spec, start: _Start) -> None:
    make = Worker
    if spec.uid.startswith("helper"):
        from .helper import Helper as make  # seldom needed

    worker = make(loop, spec)
    start.worker = worker
    sys.stdout = worker.stdout
    sys.stderr = worker.stderr
    _configure_logging(worker.config.log_level)
    session.use(worker)
    start.ready.set()
    await worker.start()
    await worker.ended
    worker.close()


def _take_sigterm(worker: Worker) -> None:
    """Leave in order on SIGTERM, also while a C call keeps the main thread.

    Python's handler runs only between its instructions; the byte in the socket is there
    at once, and the loop has its own thread.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    wakeup = theirs.detach()

    def read() -> None:
        if signal.SIGTERM in ours.recv(4096):
            worker.terminate()

    def handle(*_: object) -> None:
        before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        if before != wakeup:  # some loop of a method has taken it, or given it back
            signal.set_wakeup_fd(before)
            os.write(wakeup, bytes((signal.SIGTERM,)))

    worker.loop.call_soon_threadsafe(worker.loop.add_reader, ours, read)
    signal.signal(signal.SIGTERM, handle)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    os.register_at_fork(
        before=lambda: _mask(signal.SIG_BLOCK),
        after_in_parent=lambda: _mask(signal.SIG_UNBLOCK),
        after_in_child=_give_sigterm_back,
    )


def _give_sigterm_back() -> None:
    """In a child that a method has forked: what it gets is not its parent's.

    Also what it gets before it comes to this, which waits for that.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _mask(signal.SIG_UNBLOCK)


def _mask(how: int) -> None:
    signal.pthread_sigmask(how, (signal.SIGTERM,))


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.addLevelName(_PERF, "PERF")
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING if level == "info" else level.upper())
    # That of mosaic.logger(), whose lines are shown from this level on.
    logging.getLogger(__name__.partition(".")[0]).setLevel(level.upper())


def _give_way() -> None:
    """Have this thread not take the processor from the one that wakes it.

    Which is the loop's: it still holds the GIL when it hands a call over, and to take
    its place at once only leads back to it. A lone plain call took 430 µs with these
    two switches and takes 324 without. Whoever was given another policy keeps it.
    """
    with contextlib.suppress(AttributeError, OSError):  # not on Linux, or not allowed
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _exit_of(worker: Worker) -> Callable[[int], NoReturn]:
    """``os._exit`` for user code: what was printed before is not lost."""
    leave = os._exit

    def _exit(status: int) -> NoReturn:
        try:
            worker.before_exit()
        finally:
            leave(status)

    return _exit


class _Left:
    """The journal in a child: to note anything there is the end of its method."""

    def __init__(self, end: Callable[[], NoReturn]) -> None:
        self._end = end

    def __getitem__(self, index: int) -> int:
        return 0

    def __setitem__(self, index: int, uid: int) -> None:
        self._end()


def _forked(worker: Worker | None, leave: Callable[[int], NoReturn]) -> None:
    """In a child that user code forked: it is no worker and has no runtime.

    It may go on with the method that forked it, and where that ends so does the child:
    else it would take the worker's calls, and never go.
    """
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    faulthandler.disable()  # its file is the worker's
    if worker is None:
        return
    worker.executor.journal.close()

    def end(status: int) -> NoReturn:
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(Exception):
                if stream is not None:
                    stream.flush()
        leave(status)

    def raised(error: BaseException, task: Task) -> NoReturn:
        status = 1
        if isinstance(error, SystemExit) and isinstance(error.code, int | None):
            status = (error.code or 0) & 0xFF
        else:
            with contextlib.suppress(BaseException):
                traceback.print_exception(error, file=sys.__stderr__)
        end(status)

    worker.dump_error = raised
    # Where calls are run together it is noted that one has ended, and told later.
    worker.executor.journal.view = _Left(lambda: end(0))  # type: ignore[assignment]  # all that is done with it
    worker.completed = lambda task, outcome: end(0)  # type: ignore[method-assign]  # nothing else ends here
