"""Addresses of the network: what may be listened on, and how it is written.

What libzmq takes are numbers; people give names. Who may talk to us there is in
``security``; nothing here listens.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from typing import Final

from ..errors import AddressInUse

_DISCARD: Final = 9  # a port that nothing is sent to
_ELSEWHERE: Final = "tcp://192.0.2.1:9"  # of a network that is nobody's (RFC 5737)


def tcp_address(host: str, port: int | None = None) -> str:
    """What to bind for a host name or number of this machine; None: a free port.

    Raises:
        AddressInUse: somebody listens there; choose another port.
        ValueError: it is not one address of this machine, or its port is not for this
            user. Name the address at which other hosts reach it; all at once
            (``0.0.0.0``) are not listened on.

    >>> tcp_address("127.0.0.1"), tcp_address("::1", 4000)
    ('tcp://127.0.0.1:*', 'tcp://[::1]:4000')
    """
    number = _number(host)
    if number.is_unspecified:
        raise ValueError(
            f"address {host!r} is all addresses of this machine: name the one at which "
            "the other hosts reach it"
        )
    family = socket.AF_INET6 if number.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(number), port or 0))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    error.errno, f"port {port} at {number} is taken; choose another"
                ) from None
            if error.errno == errno.EACCES:
                raise ValueError(
                    f"port {port} is for root alone: choose one from 1024 on"
                ) from None
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            raise ValueError(
                f"address {host!r} ({number}) is not of this machine "
                f"({socket.gethostname()}): name one that it has"
            ) from None
    return tcp_text(str(number), port or "*")


def own_address(towards: str) -> str:
    """The number of this machine from which a tcp address is reached.

    Args:
        towards: such as ``tcp://10.0.0.1:4000``.

    Raises:
        OSError: there is no way there.
    """
    host, port = host_and_port(towards)
    number = ipaddress.ip_address(host)
    family = socket.AF_INET6 if number.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port or _DISCARD))  # sends nothing
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise OSError(
                error.errno, f"{towards} cannot be reached from here: {why}"
            ) from None
        return str(probe.getsockname()[0])


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of a tcp address whose port is known.

    >>> host_and_port("tcp://[::1]:4000")
    ('::1', 4000)
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)


def tcp_text(number: str, port: int | str) -> str:
    """As libzmq takes it.

    >>> tcp_text("::1", 4000)
    'tcp://[::1]:4000'
    """
    return f"tcp://[{number}]:{port}" if ":" in number else f"tcp://{number}:{port}"


def main_address() -> str:
    """The number of this machine that others most probably reach it at.

    That of its name, else the one from which the rest of the world is reached.

    Raises:
        ValueError: it has none but loopback's.
    """
    with contextlib.suppress(ValueError):
        return str(_number(socket.gethostname()))
    with contextlib.suppress(OSError):
        number = own_address(_ELSEWHERE)
        if not is_loopback(tcp_text(number, 0)):
            return number
    raise ValueError(
        "the address at which other hosts reach this machine cannot be told: name it "
        "by --address, or address="
    )


def is_loopback(address: str) -> bool:
    """Whether a tcp address can be reached from this machine alone."""
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, an interface, or * for all


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"address {host!r}: no such host ({error})") from None
    number = ipaddress.ip_address(str(found[0][4][0]))
    if number.is_loopback and host != "localhost":
        raise ValueError(
            f"address {host!r} is {number}, which only this machine reaches (see "
            "/etc/hosts): give the number at which the other hosts reach it"
        )
    return number
