"""The fork server: one process without threads that forks all the others.

It never imports the user's main module. It preloads what children need, then answers
requests on its control sockets (SOCK_SEQPACKET, one message a packet): its owner's, and
one for each child that was spawned with ``attach``. A child's end goes to the socket
that asked for the child.

Life. It ends when no control socket can bring a request any more and no child is left.
When its owner is gone it leaves the children to end by themselves, and then removes the
run directory, which its owner cannot any more; but the death of an
attached child takes what that child had spawned. SIGKILL to the server takes the
children that asked for a death signal; the others see the end of their control socket.

Nothing here may start a thread, open a ZeroMQ context or run user code in the server.
What a request looks like stands in ``fork_packets``; who sends it, in ``processes``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from ..errors import ConnectError
from .booting import hide_tunable, open_pidfd
from .directory import RunDirectory
from .fork_packets import (
    Exited,
    NotSpawned,
    Ready,
    Report,
    Spawn,
    Spawned,
    decode_request,
    receive,
    send,
)

_PR_SET_PDEATHSIG = 1
_IGNORED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),  # which engines send to all of a job
)

Entry = Callable[[bytes, list[int], int | None], object]


class _Connection:
    """A control socket, and what waits because its peer does not read."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reading = True  # until the peer has said that no more requests come
        self.unsent: deque[tuple[Report, int | None]] = deque()

    def flush(self) -> None:
        """Send what waits; what is left then waits for POLLOUT."""
        while self.unsent:
            report, pidfd = self.unsent[0]
            try:
                send(self.sock, report, [] if pidfd is None else [pidfd])
            except BlockingIOError:
                return
            except OSError:
                self.forget_unsent()
                return
            self.unsent.popleft()
            if pidfd is not None:
                os.close(pidfd)

    def forget_unsent(self) -> None:
        while self.unsent:
            _, pidfd = self.unsent.popleft()
            if pidfd is not None:
                os.close(pidfd)

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0


class _Job(msgspec.Struct, frozen=True):
    """What a new child has to do once it has left the server's loop."""

    entry: str
    argument: bytes
    fds: list[int]
    control: int | None

    def run(self) -> None:
        module, _, function = self.entry.partition(":")
        entry: Entry = getattr(importlib.import_module(module), function)
        entry(self.argument, self.fds, self.control)


class _Server:
    def __init__(self, control: socket.socket, owner_pidfd: int | None) -> None:
        self._pid = os.getpid()
        self._prctl = _load_prctl()
        self._poll = select.poll()
        self._connections: dict[int, _Connection] = {}
        self._children: dict[int, _Connection] = {}  # pid -> who asked for it
        self._attached: dict[int, _Connection] = {}  # pid -> its own control socket
        self._owner = self._connect(control)
        self._owner_pidfd = owner_pidfd
        if owner_pidfd is not None:
            # The socket alone does not tell of the owner's death: processes that the
            # user's code forked from the owner hold it too.
            self._poll.register(owner_pidfd, select.POLLIN)
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        self._poll.register(self._woken, select.POLLIN)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        # A handler must be there, or the wake-up descriptor is not written to.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def serve(self) -> _Job | None:
        """Returns None in the server, at its end, and a job in each new child."""
        self._report(self._owner, Ready(self._pid))
        while self._children or any(c.reading for c in self._connections.values()):
            events = self._poll.poll()
            # In this order, or the end of a child between the two would wake nobody.
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
            # Before the requests: what a dead node still asked for must not be done.
            self._reap()
            for fd, event in events:
                if fd == self._owner_pidfd:
                    self._poll.unregister(fd)  # it stays readable
                    self._disconnect(self._owner)
                elif connection := self._connections.get(fd):
                    job = self._serve_connection(connection, event)
                    if job is not None:
                        return job
        self._close_sockets()
        return None

    def _close_sockets(self) -> None:
        signal.set_wakeup_fd(-1)
        for connection in self._connections.values():
            connection.sock.close()
        self._woken.close()
        self._wake.close()

    # -- control sockets ---------------------------------------------------------------

    def _connect(self, sock: socket.socket) -> _Connection:
        connection = _Connection(sock)
        self._connections[sock.fileno()] = connection
        self._poll.register(sock, select.POLLIN)
        return connection

    def _disconnect(self, connection: _Connection) -> None:
        if connection.closed:
            return
        connection.reading = False
        connection.forget_unsent()
        self._poll.unregister(connection.sock)
        del self._connections[connection.sock.fileno()]
        connection.sock.close()

    def _report(
        self, connection: _Connection, report: Report, pidfd: int | None = None
    ) -> None:
        if connection.closed:
            if pidfd is not None:
                os.close(pidfd)
            return
        connection.unsent.append((report, pidfd))
        self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        connection.flush()
        events = select.POLLIN if connection.reading else 0
        if connection.unsent:
            events |= select.POLLOUT
        self._poll.modify(connection.sock, events)

    def _serve_connection(self, connection: _Connection, event: int) -> _Job | None:
        if event & select.POLLOUT:
            self._flush(connection)
        if not connection.reading:
            if event & (select.POLLHUP | select.POLLERR):
                self._disconnect(connection)
            return None
        try:
            body, fds = receive(connection.sock)
        except BlockingIOError:
            return None
        if not body:
            # Perhaps half closed only: the reports still have a reader.
            connection.reading = False
            self._flush(connection)
            return None
        try:
            request = decode_request(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            # The children of all would die with this process.
            for fd in fds:
                os.close(fd)
            text = f"mosaic: the fork server cannot read a request: {error}"
            print(text, file=sys.stderr)
            return None
        if isinstance(request, Spawn):
            return self._spawn(connection, request, fds)
        if request.pid in self._children:  # not reaped, so the pid is still its own
            with contextlib.suppress(OSError, ValueError):
                os.kill(request.pid, request.signal)
        return None

    # -- children ----------------------------------------------------------------------

    def _spawn(
        self, connection: _Connection, request: Spawn, fds: list[int]
    ) -> _Job | None:
        ends: list[socket.socket] = []
        # Blocked until the child has its own dispositions: a signal sent to it at once
        # would otherwise meet the server's, and be ignored.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            if len(fds) < request.num_fds:
                # The kernel drops, without an error, those that get no number here.
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if request.attach:
                ends += socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = os.fork()
        except OSError as error:
            for end in ends:
                end.close()
            self._report(connection, NotSpawned(request.number, str(error)))
        else:
            if pid == 0:
                return self._become_child(request, fds, ends)
            self._children[pid] = connection
            if ends:
                ends[1].close()
                self._attached[pid] = self._connect(ends[0])
            self._report(connection, Spawned(request.number, pid), open_pidfd(pid))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for fd in fds:
            os.close(fd)
        return None

    def _reap(self) -> None:
        for pid, connection in list(self._children.items()):
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if not ended:
                continue
            del self._children[pid]
            attached = self._attached.pop(pid, None)
            if attached is not None:
                self._disconnect(attached)
                for orphan, asker in self._children.items():
                    if asker is attached:
                        os.kill(orphan, signal.SIGKILL)
            unit = 1 if sys.platform == "darwin" else 1024
            self._report(connection, Exited(pid, status, usage.ru_maxrss * unit))

    def _become_child(
        self, request: Spawn, fds: list[int], ends: list[socket.socket]
    ) -> _Job:
        if request.death_signal and self._prctl is not None:
            self._prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != self._pid:  # it died before we had asked
                os._exit(1)
        os.setsid()  # a terminal's Ctrl-C reaches the head alone
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

        kept = list(fds)
        if request.stdout:
            os.dup2(kept.pop(0), 1)
        if request.stderr:
            os.dup2(kept.pop(0), 2)
        control = ends[1].detach() if ends else None
        if request.owner_pidfd:
            kept.append(-1 if self._owner_pidfd is None else self._owner_pidfd)
        # The socket objects first: one that lived on would, when it is collected, close
        # a number that has become something else.
        self._close_sockets()
        for end in ends:
            end.close()
        _close_all_but({*kept, control})

        for name, value in request.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return _Job(request.entry, request.argument, kept, control)


def main(
    control: int, owner: int, modules: Sequence[str], directory: str = ""
) -> NoReturn:
    """Be the fork server. Server and children end here, and only by os._exit.

    So neither a child nor what user code forks in it can come back into the loop.

    Args:
        control: descriptor of the socket to the owner.
        owner: pid of the process that started this one.
        modules: what to import before serving; those that are absent are left out.
        directory: the run directory; kept, and removed if the owner cannot do it.
    """
    status = 1
    try:
        job = _serve(control, owner, modules, directory)
        if job is not None:
            job.run()
        elif directory and os.getppid() != owner:
            # This is the last process of its cluster.
            with contextlib.suppress(OSError, ConnectError):
                RunDirectory.join(directory).remove()
        status = 0
    except SystemExit as stop:
        status = _exit_status(stop.code)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            _flush_streams()
        finally:
            os._exit(status)


def _serve(
    control: int, owner: int, modules: Sequence[str], directory: str
) -> _Job | None:
    """The server's life; a function of its own, so that a child keeps nothing of it."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    hide_tunable(os.environ)
    os.set_inheritable(control, False)
    _close_all_but({control})
    owner_pidfd = open_pidfd(owner)
    if os.getppid() != owner:
        return None
    if directory:
        # Held to the end of this process, so that no cleaner takes it before. Without
        # it the owner has removed it, and wants nothing more.
        with contextlib.suppress(OSError, ConnectError):
            RunDirectory.join(directory)
    gc.disable()
    for name in modules:
        # It only saves time; a child that needs the module gets the error itself.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    # What is here is never garbage: looking at it would unshare its pages.
    gc.freeze()
    return _Server(socket.socket(fileno=control), owner_pidfd).serve()


def _load_prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # not above: the head imports this module and does not need it

    prctl: Callable[..., int] = ctypes.CDLL(None).prctl
    return prctl


def _close_all_but(kept: set[int | None]) -> None:
    """Close every descriptor above standard error that is not kept."""
    directory = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for fd in map(int, os.listdir(directory)):
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(fd)


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, replaced, or its reader is gone
            stream.flush()
