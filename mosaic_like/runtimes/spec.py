"""What a child process is told when it is forked."""

from __future__ import annotations

import msgspec

from ..comms.security import Keys  # noqa: TC001 -- msgspec reads it


class Network(msgspec.Struct, frozen=True):
    """How a runtime listens to other hosts, and talks to them.

    Args:
        listen: such as ``tcp://10.0.0.1:*``, an address of its host.
        keys: None where only this machine can connect (``insecure=True``).
    """

    listen: str
    keys: Keys | None = None


class Spec(msgspec.Struct):
    """Where the cluster is, and who the child is to be."""

    config: bytes
    directory: str  # of sockets, 0700
    monitor_address: str
    monitor_token: bytes
    uid: str = ""
    path: list[str] = []  # sys.path of the head
    cwd: str = ""
    owner: bytes = b""  # token of the runtime that started the cluster
    keep: bool = False  # the cluster outlives single heads
    cores: list[int] = []  # of a worker that is pinned
    network: Network | None = None  # None: all of the cluster is on this machine

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def decode(data: bytes) -> Spec:
    """A Spec from its bytes."""
    return msgspec.msgpack.decode(data, type=Spec)
