"""Who may talk to us over the network: keys, and the decision to let a peer in.

Sockets that only this machine's directory guards (ipc) need nothing of this. Every tcp
socket is a CURVE server: libzmq encrypts, and asks for each handshake by ZAP (RFC 27)
whether the client's key is one of ours. One pair of keys is the server's and one the
clients', for a whole cluster: who has them is in the cluster. They travel by a 0600
file or by standard input, never on a command line.

For networks that are trusted a cluster may do without encryption. Then every connection
shows the clients' secret, by PLAIN, and libzmq asks about that; who can read what goes
over the network can read it too.

Nothing here touches a socket; ``zeromq`` makes the keys and asks ``answer``.
"""

from __future__ import annotations

import hmac
from typing import Any, Final

import msgspec

from .addresses import is_loopback

KEY_CHARACTERS: Final = 40  # of a key of 32 bytes, in Z85
_ZAP_VERSION: Final = b"1.0"
_CURVE: Final = b"CURVE"
_PLAIN: Final = b"PLAIN"
_ADMITTED: Final = b"200"
_KINDS: Final = 100  # of refusals that are told apart


class Keys(msgspec.Struct, frozen=True):
    """The keys of a cluster, in Z85 (RFC 32): 40 characters each.

    Args:
        server_public: known to who connects.
        server_secret: of every socket that listens.
        client_public: the only one that is let in.
        client_secret: of every socket that connects.
        encrypted: False where the last of them is shown, and all is sent in clear.
    """

    server_public: str
    server_secret: str
    client_public: str
    client_secret: str
    encrypted: bool = True

    def __post_init__(self) -> None:
        for name in self.__struct_fields__[:4]:
            if len(getattr(self, name)) != KEY_CHARACTERS:
                # The value is not printed: it may be most of a key.
                raise ValueError(
                    f"{name}: a key has {KEY_CHARACTERS} characters, this has "
                    f"{len(getattr(self, name))}; use the key file as it was written"
                )

    def __repr__(self) -> str:
        return f"<Keys of the server {self.server_public[:8]}…>"  # and no secrets


def answer(
    request: list[bytes], admitted: bytes, *, encrypted: bool = True
) -> list[bytes] | None:
    """The reply to a ZAP request; None if it is none.

    Args:
        request: version, request id, domain, address, routing id, mechanism and
            credentials, as libzmq sends them.
        admitted: the 32 bytes of the client key that is let in; where nothing is
            encrypted, the secret that has to be shown.
        encrypted: whether it is.
    """
    if len(request) < 6 or request[0] != _ZAP_VERSION:
        return None
    # The credentials of PLAIN are a name, which says nothing, and a password.
    mechanism, frames = (_CURVE, 7) if encrypted else (_PLAIN, 8)
    known = (
        request[5] == mechanism
        and len(request) == frames
        and hmac.compare_digest(request[-1], admitted)
    )
    status = (_ADMITTED, b"OK") if known else (b"400", b"this key is not let in")
    return [_ZAP_VERSION, request[1], *status, b"", b""]


def is_admitted(reply: list[bytes]) -> bool:
    """What an answer to a ZAP request says."""
    return reply[2] == _ADMITTED


class Refusals:
    """How many were not let in, by what they were."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(self.counts.values())

    def count(self, what: str) -> None:
        """One more; of what is new after _KINDS of them, only that there was one."""
        if what not in self.counts and len(self.counts) >= _KINDS:
            what = "something else"
        self.counts[what] = self.counts.get(what, 0) + 1


def check_guarded(address: str, keys: Any) -> None:
    """Refuse a tcp socket that anybody could talk to.

    Raises:
        ValueError: it is reachable from other machines and there are no keys.
    """
    if address.startswith("tcp://") and keys is None and not is_loopback(address):
        raise ValueError(
            f"{address} can be reached from other machines, and whoever reaches it can "
            "run code as you: it needs the cluster's keys; without them only loopback "
            "addresses such as tcp://127.0.0.1:* are possible"
        )
