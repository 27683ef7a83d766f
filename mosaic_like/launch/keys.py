"""The key file: where a cluster is, for programs that want to join it.

JSON in the cluster's run directory, 0600. How it is written and what makes one unsafe
to read is in ``runtimes.directory``; here is what stands in it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from ..comms.messages import PROTOCOL
from ..errors import ConnectError
from ..runtimes.base import PYTHON
from ..runtimes.directory import KEY_NAME, read_key

ENVIRONMENT = "MOSAIC_CLUSTER"  # names the key file of the cluster that is to be joined


class Key(msgspec.Struct):
    """What is needed to say Hello to a monitor, and to say well why it failed."""

    address: str  # of the monitor
    token: str  # hexadecimal, the monitor's identity on the links
    directory: str  # for the socket of who joins
    protocol: int = PROTOCOL
    python: str = PYTHON
    pid: int = 0  # of the program that owns the cluster
    host: str = ""

    @classmethod
    def of(cls, address: str, token: bytes, directory: Path) -> Key:
        """For a cluster of this process."""
        return cls(
            address,
            token.hex(),
            str(directory),
            pid=os.getpid(),
            host=socket.gethostname(),
        )

    def content(self) -> dict[str, Any]:
        """As it is written."""
        return msgspec.structs.asdict(self)


def find(where: str | os.PathLike[str] | None) -> Path:
    """The key file that is meant by a path, an address, or nothing.

    Raises:
        ConnectError: it cannot be told.
    """
    if where is None:
        where = os.environ.get(ENVIRONMENT) or ""
        if not where:
            raise ConnectError(
                f"no cluster is named: give connect() a key file, or set {ENVIRONMENT}"
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
    try:
        key = msgspec.convert(content, Key)
        bytes.fromhex(key.token)
        if not key.address.startswith(("ipc://", "tcp://")):
            raise ValueError(f"its address is {key.address[:200]!r}")
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


def check_alive(path: Path, key: Key) -> None:
    """Ask the socket whether anybody listens: a dead one answers at once.

    Raises:
        ConnectError: nobody does.
    """
    if not key.address.startswith("ipc://"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(key.address.removeprefix("ipc://"))
        except TimeoutError:
            return  # it is busy, not gone
        except OSError as error:
            raise ConnectError(
                f"{path} is stale: nobody listens at {key.address} "
                f"({os.strerror(error.errno or 0)}); its cluster, of process "
                f"{key.pid}, has ended"
            ) from None
