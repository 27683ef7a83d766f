"""Where the runtimes of a cluster listen to other hosts, and with which keys.

Without ``address=`` they do not. With it, each listens at an address of its own host:
the monitor and what stands beside it at that address, who joins from elsewhere at the
one from which it reaches the monitor, if it names no other. What listening means is in
``comms``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms.addresses import is_loopback, main_address, own_address, tcp_address
from ..config import DYNAMIC

if TYPE_CHECKING:
    from ..config import Config
    from ..runtimes.spec import Network
    from .keys import Key


def network_of(config: Config) -> Network | None:
    """For the monitor of a new cluster; None: it is on this machine alone.

    Raises:
        ValueError: the address is not one of this machine that others reach, or
            ``insecure=True`` is asked for where others could come.
    """
    host = config.address
    if host is None and config.mode == DYNAMIC:
        host = main_address()
    if host is None:
        return None
    from ..comms.zeromq import new_keys
    from ..runtimes.spec import Network

    listen = tcp_address(host, config.port)
    if not config.insecure:
        return Network(listen, new_keys(encrypted=config.encryption))
    if not is_loopback(listen):
        raise ValueError(
            f"insecure=True at {host!r}: whoever reached it could run code "
            "as you; without keys only address='127.0.0.1' is possible"
        )
    return Network(listen, None)


def beside(network: Network | None) -> Network | None:
    """The same for another runtime of that host: at a port of its own."""
    from ..runtimes.spec import Network

    if network is None:
        return None
    return Network(f"{network.listen.rpartition(':')[0]}:*", network.keys)


def network_to(key: Key, address: str | None = None) -> Network | None:
    """For who joins a cluster; None: that is on its machine alone.

    Args:
        key: of the cluster.
        address: of this machine, for the others; None: that which leads to the monitor.

    Raises:
        ValueError: it is not one of this machine that others reach.
        OSError: the monitor cannot be reached from here.
    """
    if not key.tcp:
        return None
    from ..runtimes.spec import Network

    return Network(tcp_address(address or own_address(key.tcp)), key.keys)


def warning(tcp: str) -> str:
    """What people are told of a cluster without keys."""
    return (
        f"mosaic: warning: {tcp} has no keys (insecure=True): every user of this "
        "machine can run code as you; leave insecure out"
    )
