"""A head that starts a cluster on this machine, or joins one that runs.

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

from ..config import DYNAMIC, Config
from ..environment import CLUSTER, FULL_TRACEBACK
from ..errors import ConnectError
from ..ids import MONITOR_INCARNATION
from ..runtimes.directory import RunDirectory
from . import alone
from .cluster import Cluster, end
from .early import HEAD
from .holding import Hold, let_go
from .listening import beside, network_to

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..runtimes.head import Head
    from .early import Early
    from .keys import Key
    from .remote import Remote

CONNECT_TIMEOUT_S = 4.5  # with what is done before it stays below 5 s
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


def check(config: Config) -> None:
    """Before a loop is made for it: whether this process can have a new cluster.

    Raises:
        OSError: it may not have enough files open.
    """
    if not (alone.is_wanted() or os.environ.get(CLUSTER)):
        _check_descriptors(config.num_workers)


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
        RuntimeError: it can start no threads.
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
        head = await _new_head(config)
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


async def _new_head(config: Config) -> Head:
    head_of = await _imported()
    from ..comms.zeromq.transport import check_threads  # imported with the head

    check_threads()
    return head_of(asyncio.get_running_loop(), config)


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

        thread = threading.Thread(target=work, name="mosaic import", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            pass  # none can be started: it is imported below, and the loop waits
        else:
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
        head = await _new_head(Config())
        name = f"h{os.getpid()}-{secrets.token_hex(4)}"
        head.bind(directory.socket(name), network)
        token = bytes.fromhex(key.token)
        await head.join("head", key.endpoint, token, timeout_s=CONNECT_TIMEOUT_S)
    except BaseException:
        if head is not None:
            head.close()
        let_go(directory, is_own=is_own)
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
