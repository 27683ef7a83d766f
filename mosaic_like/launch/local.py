"""A cluster on this machine: its processes, and a head that starts, joins or leaves it.

All here runs on the head's loop. Who makes that loop, and when it ends, is in
``running`` (``run``) and in ``hosting`` (``init``, ``interactive``, ``connect``).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import os
import resource
import secrets
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from .. import session
from ..config import DYNAMIC, Config
from ..environment import CLUSTER, FULL_TRACEBACK
from ..errors import ConnectError, MosaicError, RuntimeDisconnectedError
from ..ids import MONITOR_INCARNATION
from ..runtimes.booting import MODULES
from ..runtimes.directory import RunDirectory
from ..runtimes.processes import Child, ForkServer, describe_status, gone_text
from ..runtimes.spec import Spec
from . import alone
from .early import HEAD
from .listening import beside, network_of, network_to, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from ..comms.messages import Member
    from ..runtimes.head import Head
    from .early import Early
    from .keys import Key
    from .remote import Remote

GONE_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 4.5  # with what is done before it stays below 5 s


class Cluster:
    """The processes of one cluster, as their owner has them."""

    def __init__(
        self, config: Config, remote: Remote | None = None, early: Early | None = None
    ) -> None:
        self.config = config
        self.remote = remote
        # The node of this host is the only one that is no command of an engine's.
        self.has_node = config.mode != DYNAMIC or config.reuse_head
        if remote is not None:
            self.has_node = remote.layout.here is not None
        self.network = network_of(config)
        self._server: ForkServer | None = None
        try:
            if early is None:
                self.directory = RunDirectory.create()
            else:
                self.directory, booted = early.take()
                self._server = ForkServer.of(booted)
        except OSError as error:
            error.add_note(
                "mosaic: the cluster needs a run directory for its sockets; TMPDIR "
                "says where it is made"
            )
            raise
        self.monitor_address = self.directory.socket("monitor")
        self.monitor_token = secrets.token_bytes(8)
        self.key: Path | None = None
        self._server_lost = asyncio.Event()
        self._children: list[Child] = []
        self._failure = ""
        self.on_failed: Callable[[str], object] | None = None

    def launch(self) -> None:
        """Start the fork server, and ask it for monitor and node.

        Raises:
            ConnectError: the fork server cannot be started, or has ended at once.
        """
        server = self._server
        if server is None:
            try:
                server = self._server = ForkServer.start(
                    modules=MODULES, directory=str(self.directory.path)
                )
            except OSError as error:
                raise ConnectError(
                    f"the cluster did not start: no process can be made with "
                    f"{sys.executable!r}: {error}"
                ) from error
        server.on_lost = self._server_lost.set
        try:
            self._ask(server)
        except RuntimeDisconnectedError as error:
            raise ConnectError(
                f"the cluster did not start: {gone_text(server.pid)}; see what "
                f"{sys.executable!r} -c pass says"
            ) from error

    def _ask(self, server: ForkServer) -> None:
        spec = Spec(
            config=self.config.to_bytes(),
            directory=str(self.directory.path),
            monitor_address=self.monitor_address,
            monitor_token=self.monitor_token,
            path=[entry for entry in sys.path if isinstance(entry, str)],
            cwd=_working_directory(),
            network=self.network,
        )
        for kind in ("monitor", "node") if self.has_node else ("monitor",):
            if kind == "node":
                spec.network = beside(self.network)
            self._children.append(
                server.spawn(
                    f"mosaic_like.runtimes.{kind}:main",
                    spec.encode(),
                    attach=kind == "node",
                    owner_pidfd=True,
                    on_exited=self._exited,
                )
            )

    def watch(self, on_failed: Callable[[str], object]) -> None:
        """Learn on the running loop of the end of any of the processes."""
        assert self._server is not None
        self.on_failed = on_failed
        self._server.watch(asyncio.get_running_loop())

    def _exited(self, child: Child) -> None:
        if self._failure:
            return
        kind = "monitor" if child is self._children[0] else "node"
        if kind == "node" and child.status == 0:
            return  # it has left in order: the monitor knows what becomes of the rest
        if child.failure:
            self._failure = f"the {kind} could not be forked: {child.failure}"
        elif child.status is None:
            self._failure = gone_text(0 if self._server is None else self._server.pid)
        else:
            how = describe_status(child.status)
            self._failure = f"the {kind} (pid {child.pid}) is gone: {how}"
        if self.on_failed is not None:
            self.on_failed(self._failure)

    @property
    def monitor_ended(self) -> bool:
        """It is known to have; not: its fork server was lost, and it may live."""
        return bool(self._children) and self._children[0].status is not None

    def key_of(self, monitor: Member) -> Key:
        """Lets others in."""
        from .keys import Key

        keys = None if self.network is None else self.network.keys
        return Key.of(monitor, self.monitor_token, self.directory.path, keys)

    def write_key(self, monitor: Member) -> None:
        """Let other programs connect."""
        key = self.key_of(monitor)
        self.key = self.directory.write_key(key.content())
        if key.is_insecure:
            print(warning(key.tcp), file=sys.stderr)

    def kill(self) -> None:
        """Now and without order; also in a signal handler, and without a loop."""
        if self.remote is not None:
            self.remote.kill()
        for child in self._children:
            if child.pid:
                self._kill(child)
            else:
                child.on_started = self._kill

    def _kill(self, child: Child) -> None:
        with contextlib.suppress(MosaicError, TimeoutError):
            if self._server is not None:
                self._server.kill(child.pid)

    async def stopped(self) -> None:
        """Wait for the end of all processes, kill what does not end, tidy up."""
        server = self._server
        if server is not None:
            server.watch(asyncio.get_running_loop())
            try:
                async with asyncio.timeout(GONE_TIMEOUT_S):
                    for child in self._children:
                        await child.exited()
            except TimeoutError:
                self.kill()
            if self.remote is not None:
                await self.remote.stopped()
            server.close()
            # Its children are gone: it ends, and says so by the end of its socket.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    if not server.lost:
                        await self._server_lost.wait()
        self.tidy_up(0.5)

    def tidy_up(self, timeout_s: float) -> None:
        """The processes have ended, or were killed: reap, and remove the directory."""
        self.on_failed = None  # that they end is no failure any more
        server = self._server
        if server is not None and not server.wait_gone(timeout_s):
            print("mosaic: processes of the cluster did not end", file=sys.stderr)
        self._server = None
        self.directory.remove()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed under us
        return ""


class Hold:
    """How a head came to its cluster, and so how it ends.

    Args:
        head: the runtime.
        cluster: that it owns; None if it joined one.
        directory: of the cluster that it joined, or its own if that is elsewhere.
        is_own: it is to be removed.
    """

    def __init__(
        self,
        head: Head,
        cluster: Cluster | None,
        directory: RunDirectory | None = None,
        *,
        is_own: bool = False,
    ) -> None:
        self.head = head
        self.cluster = cluster
        self.directory = directory
        self._is_own = is_own
        self.maker = os.getpid()
        # Of the thread that runs the head's loop, if it is the head's alone.
        self.on_end: Callable[[], object] = lambda: None
        # Takes what is to be called at the program's deadline, if signals tell of it.
        self.on_deadline: Callable[[Callable[[], Any]], object] | None = None
        self.join: Callable[[], object] = lambda: None
        self.ending: asyncio.Task[None] | None = None

    def stop(self) -> Stopping:
        """End it; soon, and for sure when what this gives is awaited."""
        return Stopping(self)

    async def end(self) -> None:
        """On the head's loop, from any number of tasks: end it once, in order."""
        if os.getpid() != self.maker:
            return  # a fork of the program's: the cluster is not its own
        if self.ending is None:
            session.forget(self.head)
            self.ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self.ending)

    async def _end(self) -> None:
        try:
            if self.cluster is not None:
                await end(self.head, self.cluster)
            else:
                await self._leave()
        finally:
            self.on_end()

    async def _leave(self) -> None:
        head = self.head
        try:
            await head.leave()
        finally:
            head.stopping = True
            head.close()
            if self.directory is not None:
                _let_go(self.directory, is_own=self._is_own)


def _let_go(directory: RunDirectory, *, is_own: bool) -> None:
    if is_own:
        directory.remove()
    else:
        directory.release()


class Stopping:
    """What stopping gives: to be awaited on any loop, or waited for in a thread."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._future: Any = None
        loop = hold.head.loop
        if loop.is_closed() or os.getpid() != hold.maker:
            return  # it has ended, or is not that of this process but of its parent
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            self._future = asyncio.ensure_future(hold.end())
        else:
            self._future = asyncio.run_coroutine_threadsafe(hold.end(), loop)

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> None:
        if isinstance(self._future, asyncio.Future):
            await self._future
        elif self._future is not None:
            await asyncio.wrap_future(self._future)
            self._hold.join()  # its loop has only to be closed

    def wait(self) -> None:
        """Block this thread until it has ended."""
        if isinstance(self._future, asyncio.Future):
            raise RuntimeError("this is the runtime's own loop: await mosaic.stop()")
        if self._future is not None:
            self._future.result()
            self._hold.join()


# -- starting --------------------------------------------------------------------------


# What a runtime has open by itself, and for each other that it talks to: two sockets,
# their signals and the monitor of one (tried with 2 workers: 40 fail, 48 do).
_OPEN_ALONE, _OPEN_FOR_EACH = 22, 5


def _check_descriptors(num_workers: int) -> None:
    """Say at once what would else show as a cluster that does not get ready."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    peers = num_workers + 3  # the monitor, the node and its warehouse
    needed = _OPEN_ALONE + _OPEN_FOR_EACH * peers
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise OSError(
            errno.EMFILE,
            f"a process may have {limit} files open here, and {num_workers} workers "
            f"need at least {needed}: say 'ulimit -n {max(needed, 1024)}' first, or "
            "take fewer workers",
        )


async def start(
    config: Config,
    uid: str = "",
    made: Callable[[Cluster], object] | None = None,
    remote: Remote | None = None,
    early: Early | None = None,
) -> tuple[Head, Cluster]:
    """A new cluster with a head on the running loop, all its workers ready.

    Args:
        config: of all of it.
        uid: for a member that is to be none of the heads, such as mrun.
        made: told of the cluster before anything of it is started.
        remote: the nodes of other hosts.
        early: what of it was started already.

    Raises:
        ConnectError: it did not start; the text says which part, and why.
        TimeoutError: not all workers were there in ``config.timeout``.
        OSError: this process may not have enough files open.
    """
    elsewhere = () if remote is None else remote.layout.others
    _check_descriptors(config.num_workers + sum(h.workers or 1 for h in elsewhere))
    loop = asyncio.get_running_loop()
    cluster = Cluster(config, remote, early)
    if made is not None:
        made(cluster)
    failed: asyncio.Future[str] = loop.create_future()
    head = None
    try:
        cluster.launch()
        cluster.watch(lambda why: failed.done() or failed.set_result(why))  # type: ignore[func-returns-value]  # for its effect
        # While the fork server imports, so does this process.
        head = (await _imported())(loop, config)
        head.bind(cluster.directory.socket("head"), beside(cluster.network))
        await _unless(failed, _joined(head, cluster, uid))
        cluster.write_key(head.members[MONITOR_INCARNATION])
        cluster.on_failed = head.lose_cluster
        if failed.done():
            head.lose_cluster(failed.result())
    except BaseException:
        if head is not None:
            await asyncio.shield(end(head, cluster))
        else:
            cluster.kill()
            await cluster.stopped()
        raise
    head.hold = Hold(head, cluster)
    return head, cluster


async def _imported() -> type[Head]:
    """The class of the head: to import it takes longer than others can do without."""
    if HEAD not in sys.modules:
        loop = asyncio.get_running_loop()
        imported: asyncio.Future[None] = loop.create_future()

        def done() -> None:
            if not imported.done():
                imported.set_result(None)

        def work() -> None:
            # What it raises is raised again below, where somebody hears it.
            with contextlib.suppress(Exception):
                importlib.import_module(HEAD)
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(done)

        threading.Thread(target=work, name="mosaic import", daemon=True).start()
        await imported
    from ..runtimes.head import Head

    return Head


async def _joined(head: Head, cluster: Cluster, uid: str) -> None:
    timeout_s = cluster.config.timeout
    address, token = cluster.monitor_address, cluster.monitor_token
    await head.join("head", address, token, uid, timeout_s or 180.0)
    remote = cluster.remote
    if remote is not None:
        await remote.start(cluster.key_of(head.members[MONITOR_INCARNATION]))
        await remote.ready(head, timeout_s, str(cluster.directory.path))
    elif cluster.has_node:
        waiting = head.wait_for_workers(cluster.config.num_workers, timeout_s)
        await _unless(head.stillborn, waiting)


async def _unless(
    failed: asyncio.Future[str], awaitable: Coroutine[Any, Any, None]
) -> None:
    """Await it, unless a process dies meanwhile that it needs."""
    waiting = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait((waiting, failed), return_when="FIRST_COMPLETED")
        if not waiting.done():
            raise ConnectError(f"the cluster did not start: {failed.result()}")
    finally:
        waiting.cancel()
    await waiting


async def end(head: Head, cluster: Cluster) -> None:
    """Stop the cluster in order."""
    from ..comms import messages as wire

    head.peers.on_dropped()  # what failed unasked is told before that is no news
    head.unheard_failures.flush(all_of_it=True)
    head.stopping = True
    lines: list[str] = []
    gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    cluster.on_failed = lambda why: gone.done() or gone.set_result(why)  # type: ignore[func-returns-value]  # for its effect
    if not head.incarnation:
        cluster.kill()
    elif not cluster.monitor_ended:
        with contextlib.suppress(TimeoutError, MosaicError):
            head.monitor.send(wire.Stop("the program has ended"))
            async with asyncio.timeout(cluster.config.stop_timeout_s + 20.0):
                await asyncio.wait(
                    (head.stopped, head.monitor_ended, gone),
                    return_when="FIRST_COMPLETED",
                )
        if head.stopped.done():
            lines = head.stopped.result()
            await head.flushed(0.2, "monitor")
    head.close()
    await cluster.stopped()
    for line in lines:
        print(f"mosaic: {line}", file=sys.stderr)


# -- joining ---------------------------------------------------------------------------


async def join(where: str | os.PathLike[str] | None) -> Head:
    """A head on the running loop in a cluster that runs.

    Raises:
        ConnectError: within 5 s; the text names the key file and says why.
    """
    from . import keys

    source, key = keys.load(where)
    try:
        return await _join(key)
    except (ConnectError, OSError) as error:
        raise ConnectError(f"{source}: {error}") from error


async def _join(key: Key) -> Head:
    head_of = await _imported()
    network = network_to(key)
    # From elsewhere it is a directory of our own, for who joins beside us.
    is_own = not key.endpoint.startswith("ipc://")
    if is_own:
        from . import versions  # who joins on this machine has the same

        if told := versions.warning(key.versions):
            print(told, file=sys.stderr)
    directory = RunDirectory.create() if is_own else RunDirectory.join(key.directory)
    head = None
    try:
        head = head_of(asyncio.get_running_loop(), Config())
        name = f"h{os.getpid()}-{secrets.token_hex(4)}"
        head.bind(directory.socket(name), network)
        token = bytes.fromhex(key.token)
        await head.join("head", key.endpoint, token, timeout_s=CONNECT_TIMEOUT_S)
    except BaseException:
        if head is not None:
            head.close()
        _let_go(directory, is_own=is_own)
        raise
    head.hold = Hold(head, None, directory, is_own=is_own)
    return head


async def begin(
    options: dict[str, Any],
    made: Callable[[Cluster], object] | None = None,
    early: Early | None = None,
) -> Head:
    """The head of this program: in the cluster of mrun if it runs there, else its own.

    ``MOSAIC_CLUSTER`` names the cluster to join; then the options, which are for a new
    one, are checked and count for nothing. ``MOSAIC_LOCAL``: none is started.
    """
    config = Config.make(**options)
    if config.full_traceback:
        # Where an error is shown may be after the end of its runtime.
        os.environ[FULL_TRACEBACK] = "1"
    if alone.is_wanted():
        return await alone.begin(config)  # type: ignore[return-value]  # has all that is asked of one
    if os.environ.get(CLUSTER):
        head = await join(None)
        if head.config.mode == DYNAMIC:
            return head  # the program knows for whom it waits
        try:
            await head.wait_for_workers(1, config.timeout)
        except BaseException:
            await head.hold.end()
            raise
        return head
    head, _ = await start(config, made=made, early=early)
    if not config.quiet and _is_terminal():
        from .layout import local_warnings  # people can wait for it

        for line in local_warnings(config):
            print(f"mosaic: {line}", file=sys.stderr)
        print(start_line(head), file=sys.stderr)
    return head


def start_line(head: Head) -> str:
    """What people see when a cluster has started."""
    from .. import __version__

    version = __version__.removesuffix(".0")
    count = head.num_workers
    workers = "1 worker" if count == 1 else f"{count} workers"
    line = f"mosaic {version} · {workers} on {socket.gethostname()}"
    if head.config.mode != DYNAMIC:
        return line
    address = head.members[MONITOR_INCARNATION].tcp.removeprefix("tcp://")
    return f"{line} · nodes may join at {address}"


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False
