"""The key: where a cluster is, and who may join it.

JSON on one line, in a file in the cluster's run directory, 0600; or the same on
standard input, for who is started on another host by a program that has it. It is never
on a command line or in an environment, which others can read. How the file is written
and what makes one unsafe to read is in ``runtimes.directory``; here is what stands in
it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from ..comms.addresses import host_and_port, tcp_text
from ..comms.messages import PROTOCOL, Member
from ..comms.security import Keys, check_guarded
from ..core.reach import endpoint, is_near
from ..environment import CLUSTER, MONITOR_HOST, MONITOR_PORT
from ..errors import ConnectError
from ..runtimes.base import PYTHON
from ..runtimes.directory import KEY_BYTES, KEY_NAME, parse_key, read_key
from ..runtimes.machine import machine_id
from .roles import STANDARD_INPUT


class Key(msgspec.Struct):
    """What is needed to say Hello to a monitor, and to say well why it failed."""

    address: str  # of the monitor
    token: str  # hexadecimal, the monitor's identity on the links
    directory: str  # for the socket of who joins
    protocol: int = PROTOCOL
    python: str = PYTHON
    pid: int = 0  # of the program that owns the cluster
    host: str = ""
    machine: str = ""  # see core.reach
    tcp: str = ""  # of the monitor, for other hosts; empty: it is not reached from them
    keys: Keys | None = None  # for tcp; None there: it is insecure
    versions: dict[str, str] = {}  # of libraries; none where all are on one machine

    @classmethod
    def of(
        cls, monitor: Member, token: bytes, directory: Path, keys: Keys | None
    ) -> Key:
        """For a cluster of this process."""
        return cls(
            monitor.address,
            token.hex(),
            str(directory),
            pid=os.getpid(),
            host=socket.gethostname(),
            machine=monitor.machine,
            tcp=monitor.tcp,
            keys=keys,
            versions=_versions() if monitor.tcp else {},
        )

    def content(self) -> dict[str, Any]:
        """As it is written."""
        written: dict[str, Any] = msgspec.to_builtins(self)
        return written

    def __repr__(self) -> str:
        return f"<Key of {self.endpoint}>"  # and no secrets

    @property
    def is_near(self) -> bool:
        """Whether the cluster's directory is on this machine."""
        return is_near(_here(), self)

    @property
    def endpoint(self) -> str:
        """Where the monitor is reached from here."""
        return endpoint(_here(), self)

    @property
    def is_insecure(self) -> bool:
        """Whether it listens without keys."""
        return bool(self.tcp) and self.keys is None


def _versions() -> dict[str, str]:
    from .versions import versions  # only where other hosts may join

    return versions()


def _here() -> Member:
    return Member(0, "", b"", "", "", 0, machine=machine_id())


def find(where: str | os.PathLike[str] | None) -> Path:
    """The key file that is meant by a path, an address, or nothing.

    Raises:
        ConnectError: it cannot be told.
    """
    if where is None:
        where = os.environ.get(CLUSTER) or ""
        if not where:
            raise ConnectError(
                f"no cluster is named: give connect() a key file, or set {CLUSTER}"
            )
    text = os.fspath(where)
    if text.startswith("ipc://"):
        return Path(text.removeprefix("ipc://")).parent / KEY_NAME
    if "://" in text:
        raise ConnectError(
            f"{text}: who joins over the network needs the cluster's key; name its key "
            "file instead of its address"
        )
    path = Path(text)
    return path / KEY_NAME if path.is_dir() else path


def read(path: Path) -> Key:
    """What stands in a key file.

    Raises:
        ConnectError: it is not there, not ours, no key file, or of another version.
    """
    try:
        content = read_key(path)
    except ConnectError:
        raise
    except OSError as error:
        text = str(error)
        why = text if str(path) in text else f"{path}: {text}"
        raise ConnectError(why) from error
    return _checked(content, str(path))


def read_standard_input() -> Key:
    """What comes on standard input, up to the end of its first line.

    What follows is left there: who gave the key may go on to write, or keep it open.

    Raises:
        ConnectError: that is no key, or of another version.
    """
    line = bytearray()
    try:
        while len(line) <= KEY_BYTES and (byte := os.read(0, 1)) not in (b"", b"\n"):
            line += byte
    except OSError as error:
        raise ConnectError(f"standard input cannot be read: {error}") from error
    if not line and not byte:
        raise ConnectError(
            "standard input, on which the key should come, is empty: what runs before "
            "(SSH_COMMANDS, or a file that the shell reads) may have read it; give "
            "that </dev/null"
        )
    return _checked(parse_key(bytes(line), "standard input"), "standard input")


def _checked(content: dict[str, Any], path: str) -> Key:
    try:
        key = msgspec.convert(content, Key)
        bytes.fromhex(key.token)
        if not key.address.startswith(("ipc://", "tcp://")):
            raise ValueError(f"its address is {key.address[:200]!r}")
        if key.tcp and not key.tcp.startswith("tcp://"):
            raise ValueError(f"its address for other hosts is {key.tcp[:200]!r}")
        if key.is_insecure:
            check_guarded(key.tcp, None)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConnectError(f"{path} is not a key file: {error}") from None
    if key.protocol != PROTOCOL:
        raise ConnectError(
            f"{path}: its cluster speaks protocol {key.protocol}, this program "
            f"{PROTOCOL}: install the same version of mosaic_like everywhere"
        )
    if key.python != PYTHON:
        raise ConnectError(
            f"{path}: its cluster runs Python {key.python}, this program {PYTHON}: "
            "code does not travel between them; use the same Python everywhere"
        )
    return key


def load(where: str | os.PathLike[str] | None) -> tuple[str, Key]:
    """The key that is meant, and where it comes from, for people.

    Args:
        where: as for ``find``; ``-`` is standard input.

    Raises:
        ConnectError: there is none, it is stale, or it is no key of ours.
    """
    if where == STANDARD_INPUT:
        return "the key on standard input", redirected(read_standard_input())
    path = find(where)
    key = redirected(read(path))
    check_alive(path, key)
    return str(path), key


def redirected(key: Key) -> Key:
    """The same with the monitor's address that the environment names, if it does.

    Raises:
        ConnectError: nobody can be reached there.
    """
    host, port = os.environ.get(MONITOR_HOST), os.environ.get(MONITOR_PORT)
    if not host and not port:
        return key
    given = f"{MONITOR_HOST}={host or ''} {MONITOR_PORT}={port or ''}"
    if not key.tcp:
        raise ConnectError(
            f"{given}: the cluster of this key is not reached by the network: start "
            "it with address=, mrun --address or mrun --dynamic"
        )
    known, known_port = host_and_port(key.tcp)
    try:
        number = int(port or known_port)
        found = socket.getaddrinfo(host or known, number, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError, ValueError) as error:
        raise ConnectError(f"{given}: {error}") from None
    tcp = tcp_text(str(found[0][4][0]), number)
    if key.keys is None:
        try:
            check_guarded(tcp, None)
        except ValueError as error:
            raise ConnectError(f"{given}: {error}") from None
    # No machine: it is reached by the network, also from its own.
    return msgspec.structs.replace(key, tcp=tcp, machine="")


def check_alive(path: Path, key: Key) -> None:
    """Ask the socket whether anybody listens: a dead one answers at once.

    Raises:
        ConnectError: nobody does.
    """
    if not key.endpoint.startswith("ipc://"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(key.address.removeprefix("ipc://"))
        except TimeoutError:
            return  # it is busy, not gone
        except OSError as error:
            if key.machine and not key.is_near:
                raise ConnectError(
                    f"{path}: its cluster, on {key.host}, is not reached from other "
                    "hosts: start it with address=, or mrun --address"
                ) from None
            raise ConnectError(
                f"{path} is stale: nobody listens at {key.address} "
                f"({os.strerror(error.errno or 0)}); its cluster, of process "
                f"{key.pid}, has ended"
            ) from None
