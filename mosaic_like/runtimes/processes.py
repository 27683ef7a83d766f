"""Children as seen by who asked for them: the client of the fork server.

``ForkServer`` starts the server (head, mrun) or takes over the control socket that an
attached child was given (node). It never blocks unless asked to: ``spawn`` sends and
returns, the answers are taken in by ``receive``, called by a loop (``watch``) or by
``wait_until`` before there is a loop. One thread at a time.

What the children do, and how the server works, is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

from ..errors import RuntimeDisconnectedError, Verdict
from . import fork_packets as packets
from .booting import PRELOAD, Booted, boot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Child:
    """A process that was asked for.

    ``pid`` is 0 until the server has forked it. ``status`` is as os.waitpid gives it,
    None while it runs, and for ever if the server was lost (``lost``). ``pidfd`` is
    closed after ``on_exited`` has been called.
    """

    def __init__(
        self,
        entry: str,
        on_started: Callable[[Child], None] | None = None,
        on_exited: Callable[[Child], None] | None = None,
    ) -> None:
        self.entry = entry
        self.pid = 0
        self.pidfd: int | None = None
        self.status: int | None = None
        self.max_rss_bytes = 0
        self.failure = ""  # why it was never forked
        self.lost = False
        self.on_started = on_started
        self.on_exited = on_exited
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<Child {self.entry} pid {self.pid}: {self._describe()}>"

    def _describe(self) -> str:
        if self.failure:
            return self.failure
        if self.status is not None:
            return describe_status(self.status)
        if self.lost:
            return "its fork server is gone"
        return "running" if self.pid else "starting"

    @property
    def ended(self) -> bool:
        """Nothing more will be heard of it."""
        return self.status is not None or self.lost or bool(self.failure)

    async def started(self) -> int:
        """Its pid, as soon as it is forked; on a loop that watches the server."""
        while not self.pid and not self.ended:
            await self._change()
        if not self.pid:
            raise _gone(f"{self.entry} was not started: {self._describe()}")
        return self.pid

    async def exited(self) -> int | None:
        """Its status when it has ended; None if that cannot be known any more."""
        while not self.ended:
            await self._change()
        return self.status

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _started(self, pid: int, pidfd: int | None) -> None:
        self.pid, self.pidfd = pid, pidfd
        self._wake()
        if self.on_started is not None:
            self.on_started(self)

    def _ended(self) -> None:
        self._wake()
        try:
            if self.on_exited is not None:
                self.on_exited(self)
        finally:
            _close(self.pidfd)
            self.pidfd = None


class ForkServer:
    """A control socket to the fork server."""

    def __init__(self, control: socket.socket, pid: int, timeout_s: float) -> None:
        control.setblocking(False)
        self.pid = pid  # of the server; 0 if somebody else started it
        self.ready = not pid  # it has preloaded
        self.lost = False  # the socket has come to its end
        self.on_lost: Callable[[], None] | None = None
        self._control = control
        # With this it is reaped later without a chance to take another's status,
        # whoever else reaps in this process.
        self._pidfd: int | None = None
        self._timeout_s = timeout_s
        self._maker = os.getpid()
        self._numbers = 0
        self._asked: dict[int, Child] = {}  # not yet answered
        self._children: dict[int, Child] = {}  # by pid
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def start(
        cls,
        *,
        environment: Mapping[str, str | None] | None = None,
        modules: Sequence[str] = PRELOAD,
        directory: str = "",
        timeout_s: float = 30.0,
    ) -> ForkServer:
        """Start the server and return while it imports; children may be asked for.

        Args:
            environment: changes to this process's environment; None removes.
            modules: what it imports before it forks; what is absent is left out.
            directory: the run directory, which it holds, and removes if it ends after
                this process.
            timeout_s: for waits that are given no time of their own.
        """
        return cls.of(boot(directory, modules, environment), timeout_s)

    @classmethod
    def of(cls, booted: Booted, timeout_s: float = 30.0) -> ForkServer:
        """Speak to the server that was started before all this was imported."""
        server = cls(booted.control, booted.pid, timeout_s)
        server._pidfd = booted.pidfd
        return server

    @classmethod
    def adopt(cls, control: int, *, timeout_s: float = 30.0) -> ForkServer:
        """Speak to the server over the socket that an attached child was given."""
        return cls(socket.socket(fileno=control), 0, timeout_s)

    # -- requests ----------------------------------------------------------------------

    def spawn(
        self,
        entry: str,
        argument: bytes = b"",
        *,
        environment: Mapping[str, str | None] | None = None,
        fds: Sequence[int] = (),
        attach: bool = False,
        death_signal: bool = False,
        owner_pidfd: bool = False,
        stdout: int | None = None,
        stderr: int | None = None,
        on_started: Callable[[Child], None] | None = None,
        on_exited: Callable[[Child], None] | None = None,
    ) -> Child:
        """Ask for a child; it is forked when the server gets to it.

        Args:
            entry: ``module:function``, called with the argument, the list of
                descriptors that it was given, and its control socket or None.
            argument: up to about 128 KiB.
            environment: changes, made before anything is imported; None removes.
            fds: descriptors that the child gets, under other numbers, in this order;
                the caller may close its own at once.
            attach: give it a control socket; when it dies, what it spawned is killed.
            death_signal: kill it when the server dies (Linux).
            owner_pidfd: append a pidfd of the process that started the server to its
                descriptors, -1 where the kernel has none.
            stdout, stderr: descriptors for it instead of those of the owner.

        Raises:
            RuntimeDisconnectedError: the server has ended; start another.
        """
        if not all(entry.partition(":")):
            raise ValueError(f"entry is {entry!r}, expected 'module:function'")
        self._numbers += 1
        sent = [*(fd for fd in (stdout, stderr) if fd is not None), *fds]
        request = packets.Spawn(
            number=self._numbers,
            entry=entry,
            argument=argument,
            environment=dict(environment or {}),
            attach=attach,
            death_signal=death_signal,
            owner_pidfd=owner_pidfd,
            stdout=stdout is not None,
            stderr=stderr is not None,
            num_fds=len(sent),
        )
        child = Child(entry, on_started, on_exited)
        self._send(request, sent)
        self._asked[request.number] = child
        return child

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a child of the server, whoever asked for that child.

        A child that has ended, or never was the server's, is left alone.
        """
        self._send(packets.Kill(pid, number), [])

    def _send(self, request: packets.Request, fds: Sequence[int]) -> None:
        if os.getpid() != self._maker:
            raise RuntimeError(
                "the fork server belongs to the process that started it, not to a "
                "fork of that process; start a runtime here"
            )
        deadline = time.monotonic() + self._timeout_s
        while not self.lost:
            try:
                return packets.send(self._control, request, fds)
            except BlockingIOError:
                if not _poll(self._control.fileno(), select.POLLOUT, deadline):
                    raise TimeoutError(
                        f"the fork server has read nothing for {self._timeout_s} s"
                    ) from None
            except ConnectionError:
                break
        raise _gone("the fork server has ended; start the runtime again")

    # -- reports -----------------------------------------------------------------------

    def receive(self) -> None:
        """Take in all that the server has said."""
        while not self.lost:
            try:
                body, fds = packets.receive(self._control)
            except BlockingIOError:
                return
            if body:
                self._take(packets.decode_report(body), fds)
            else:
                self._lose()

    def _take(self, report: packets.Report, fds: list[int]) -> None:
        match report:
            case packets.Ready():
                self.ready = True
            case packets.Spawned(number, pid):
                child = self._children[pid] = self._asked.pop(number)
                child._started(pid, fds[0] if fds else None)
            case packets.NotSpawned(number, why):
                child = self._asked.pop(number)
                child.failure = why
                child._ended()
            case packets.Exited(pid, status, max_rss_bytes):
                child = self._children.pop(pid)
                child.status, child.max_rss_bytes = status, max_rss_bytes
                child._ended()

    def _lose(self) -> None:
        self.lost = True
        self.unwatch()
        children = [*self._asked.values(), *self._children.values()]
        self._asked.clear()
        self._children.clear()
        for child in children:
            child.lost = True
            child._wake()
        for child in children:
            child._ended()
        if self.on_lost is not None:
            self.on_lost()

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let this loop take in the reports, until the end or ``unwatch``."""
        self.unwatch()
        if not self.lost:
            self._loop = loop
            loop.add_reader(self._control.fileno(), self.receive)

    def unwatch(self) -> None:
        if self._loop is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._control.fileno())
            self._loop = None

    def wait_until(
        self, condition: Callable[[], object], timeout_s: float | None = None
    ) -> None:
        """Take in reports, blocking, until this is true. Not while a loop watches.

        Raises:
            TimeoutError: it did not become true in time.
            RuntimeDisconnectedError: the server ended, and now it never will.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        self.receive()
        while not condition():
            if self.lost:
                raise _gone("the fork server has ended; start the runtime again")
            if not _poll(self._control.fileno(), select.POLLIN, deadline):
                raise TimeoutError(f"the fork server did not answer in {timeout_s} s")
            self.receive()

    # -- the end -----------------------------------------------------------------------

    def close(self) -> None:
        """Ask for nothing more: the server ends when its last child has.

        Ends of children are still reported, until ``wait_gone``.
        """
        if self._control.fileno() < 0:
            return
        if os.getpid() != self._maker:  # a fork of ours: the socket is not its own
            self._control.close()
        elif not self.lost:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)

    def wait_gone(self, timeout_s: float | None = None) -> bool:
        """Close, wait for the server's end, blocking, and leave nothing of it here.

        False if it is still there after this time, because a child of it is.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        self.close()
        self.unwatch()
        try:
            if self._control.fileno() >= 0:
                self.wait_until(lambda: self.lost, timeout_s)
        except TimeoutError:
            return False
        # Its sockets are closed a moment before it can be reaped.
        while self.pid and not self._reap(deadline):
            if time.monotonic() > deadline:
                return False
        self.pid = 0
        _close(self._pidfd)
        self._pidfd = None
        self._control.close()
        return True

    def _reap(self, deadline: float) -> bool:
        try:
            if self._pidfd is not None:
                _poll(self._pidfd, select.POLLIN, deadline)
                options = os.WEXITED | os.WNOHANG
                return os.waitid(os.P_PIDFD, self._pidfd, options) is not None
            time.sleep(0.001)
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # other code of this process has reaped it
            return True


def describe_status(status: int) -> str:
    """How a process ended, for people.

    >>> describe_status(9), describe_status(3 << 8)
    ('killed by SIGKILL', 'exit status 3')
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"


def gone_text(pid: int) -> str:
    """That a fork server is lost, for people."""
    return f"the fork server (pid {pid}), which makes the workers, has ended"


def _gone(message: str) -> RuntimeDisconnectedError:
    return RuntimeDisconnectedError(
        message, runtime_id="fork server", verdict=Verdict.NOT_STARTED
    )


def _poll(fd: int, events: int, deadline: float) -> bool:
    """Wait for one of these events until the deadline (monotonic seconds)."""
    poll = select.poll()
    poll.register(fd, events)
    left_ms = (deadline - time.monotonic()) * 1000
    return bool(poll.poll(max(left_ms, 0)))


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
