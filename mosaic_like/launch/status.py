"""``mrun status``, ``memory`` and ``stop``: clusters of this user, seen from outside.

They are found by the key files in the run directories, and asked by joining them for a
moment, under a uid that is no head's. One whose monitor does not listen any more is not
a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..config import Config
from ..errors import ConnectError
from ..ids import short
from ..runtimes.directory import KEY_NAME, run_directories
from ..runtimes.head import Head
from ..text import printable, printable_lines
from . import keys
from .listening import network_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..proxies.memory import MemoryReport
    from ..runtimes.base import Base

ANSWER_TIMEOUT_S = 3.0
STOP_TIMEOUT_S = 30.0


@dataclasses.dataclass(frozen=True)
class Found:
    """A cluster that runs."""

    path: Path  # of its key file
    key: keys.Key
    since_s: float  # seconds since the epoch

    @property
    def id(self) -> str:
        return self.path.parent.name


def find(where: str | None = None) -> list[Found]:
    """The clusters that run: all of this user's, or the one that is meant.

    Args:
        where: a key file, a run directory or an id; None for all.

    Raises:
        ConnectError: the one that is meant does not run.
    """
    if where is not None:
        for directory in run_directories():
            if directory.name == where:
                return [_look(directory / KEY_NAME)]
        if os.sep not in where and not os.path.exists(where):
            raise ConnectError(f"no cluster {where} of yours runs here")
        return [_look(keys.find(where).absolute())]
    found = []
    for directory in run_directories():
        # Stale, of another version, or just ending: not to be shown.
        with contextlib.suppress(ConnectError, OSError):
            found.append(_look(directory / KEY_NAME))
    return sorted(found, key=lambda cluster: cluster.since_s)


def _look(path: Path) -> Found:
    key = keys.read(path)
    keys.check_alive(path, key)
    return Found(path, key, path.stat().st_mtime)


@contextlib.asynccontextmanager
async def _joined(cluster: Found) -> AsyncIterator[Head]:
    """A member of it for a moment."""
    name = f"look{secrets.token_hex(4)}"
    socket_path = Path(cluster.key.directory) / name
    head = Head(asyncio.get_running_loop(), Config(num_workers=1))
    try:
        head.bind(f"ipc://{socket_path}", network_to(cluster.key))
        await head.join(
            "head",
            cluster.key.endpoint,
            bytes.fromhex(cluster.key.token),
            uid=name,
            timeout_s=ANSWER_TIMEOUT_S,
        )
        try:
            yield head
        finally:
            await head.leave()
    finally:
        head.close()
        with contextlib.suppress(OSError):
            socket_path.unlink()


async def describe(cluster: Found) -> dict[str, Any] | None:
    """What there is to say of it, as it goes into JSON; None if it has just ended."""
    about: dict[str, Any] = {
        "id": cluster.id,
        "pid": cluster.key.pid,
        "host": cluster.key.host,
        "key_file": str(cluster.path),
        "tcp": cluster.key.tcp,
        "insecure": cluster.key.is_insecure,
        "encrypted": cluster.key.keys is not None and cluster.key.keys.encrypted,
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(cluster.since_s)),
        "up_s": round(max(0.0, time.time() - cluster.since_s), 1),
    }
    try:
        async with _joined(cluster) as head:
            for kind in ("head", "node", "worker", "warehouse"):
                about[f"{kind}s"] = _members(head, kind)
            about["names"] = await _names(head)
    except Exception as error:  # also of the socket, when its directory goes
        try:
            _look(cluster.path)
        except (ConnectError, OSError):
            return None
        if not isinstance(error, ConnectError):
            raise
        about["error"] = str(error)
    return about


def _members(runtime: Base, kind: str) -> list[dict[str, Any]]:
    return [
        {"uid": member.uid, "pid": member.pid, "host": member.host}
        for member in runtime.of_kind(kind)
    ]


async def _names(head: Head) -> list[dict[str, Any]]:
    """The tesserae that have names; of one that is being made, without its place."""
    answered: asyncio.Future[wire.Names] = head.loop.create_future()

    def on_names(message: wire.Names, buffers: Any, sender: int) -> None:
        if not answered.done():
            answered.set_result(message)

    head.handlers[wire.Names] = on_names
    head.monitor.send(wire.AskNames())
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            entries = (await answered).entries
    except TimeoutError:
        raise ConnectError(
            f"its monitor did not say in {ANSWER_TIMEOUT_S:g} s which names are taken"
        ) from None
    return [
        {
            "name": entry.name,
            "class": entry.cls,
            "runtime": head.uid_of(entry.owner),
            "detached": entry.detached,
        }
        for entry in entries
    ]


def show(where: str | None, *, as_json: bool) -> int:
    """``mrun status``: print what runs; the exit code."""
    clusters = find(where)

    async def ask() -> list[dict[str, Any]]:
        found = [await describe(cluster) for cluster in clusters]
        return [about for about in found if about is not None]

    found = asyncio.run(ask())
    if as_json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("no cluster of yours runs here; start one: mrun CMD, or mrun repl")
    for about in [] if as_json else found:
        for line in _lines(about):
            print(printable(line))
    return 0


def show_memory(where: str | None, *, as_json: bool) -> int:
    """``mrun memory``: print the large values of the clusters; the exit code."""
    clusters = find(where)
    answers = False

    async def ask() -> list[tuple[Found, MemoryReport | str]]:
        found: list[tuple[Found, MemoryReport | str]] = []
        for cluster in clusters:
            try:
                async with _joined(cluster) as head:
                    found.append((cluster, await head.memory()))
            except (ConnectError, OSError) as error:
                found.append((cluster, str(error)))
        return found

    found = asyncio.run(ask())
    if as_json:
        told = [
            {"id": cluster.id}
            | ({"error": report} if isinstance(report, str) else report.to_dict())
            for cluster, report in found
        ]
        print(json.dumps(told, indent=2))
    elif not found:
        print("no cluster of yours runs here; start one: mrun CMD, or mrun repl")
    for cluster, report in found:
        answers = answers or not isinstance(report, str)
        if not as_json:
            print(f"{cluster.id} · pid {cluster.key.pid}")
            print(printable_lines(str(report)))
    return 0 if answers or not found else 1


def _lines(about: dict[str, Any]) -> list[str]:
    first = f"{about['id']} · pid {about['pid']}"
    up = f"up {_duration(about['up_s'])} · {about['key_file']}"
    if "error" in about:
        return [f"{first} · does not answer · {up}"]
    counts = " · ".join(
        _count(len(about[f"{kind}s"]), kind) for kind in ("worker", "node", "head")
    )
    lines = [f"{first} · {counts} · {up}"]
    if about["tcp"]:
        keys = "with keys" if about["encrypted"] else "with keys, but not encrypted"
        if about["insecure"]:
            keys = "without keys: INSECURE"
        lines.append(f"  listens at {about['tcp']}, {keys}")
    lines += [
        f"  {short(member['uid'])}  pid {member['pid']}  {member['host']}"
        for member in (*about["workers"], *about["warehouses"])
    ]
    for named in about["names"]:
        kind = named["class"].rpartition(".")[2]
        place = f" on {short(named['runtime'])}" if named["runtime"] else ""
        detached = " · detached" if named["detached"] else ""
        lines.append(f"  {named['name']!r}  {kind}{place}{detached}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    """How long, for people.

    >>> _duration(41.2), _duration(3700), _duration(200_000)
    ('0:41', '1:01:40', '2 days 7:33:20')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = (
        f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    )
    return f"{_count(days, 'day')} {text}" if days else text


def stop_cluster(where: str | None) -> int:
    """``mrun stop``: ask a cluster's monitor to stop it, and wait; the exit code."""
    clusters = find(where)
    if not clusters:
        print("no cluster of yours runs here")
        return 0
    if len(clusters) > 1:
        names = ", ".join(cluster.id for cluster in clusters)
        print(f"mrun: which one? {names}; write: mrun stop ID", file=sys.stderr)
        return 2
    return asyncio.run(_stop(clusters[0]))


async def _stop(cluster: Found) -> int:
    async with _joined(cluster) as head:
        head.monitor.send(wire.Stop(f"mrun stop, by pid {os.getpid()}"))
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                lines = await head.stopped
        except TimeoutError:
            print(
                f"mrun: {cluster.id} has not stopped in {STOP_TIMEOUT_S:g} s",
                file=sys.stderr,
            )
            return 1
    for line in lines:
        print(f"mosaic: {line}", file=sys.stderr)
    print(f"stopped {cluster.id}")
    return 0
