"""What a child process is told when it is forked."""

from __future__ import annotations

import msgspec


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

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def decode(data: bytes) -> Spec:
    """A Spec from its bytes."""
    return msgspec.msgpack.decode(data, type=Spec)
