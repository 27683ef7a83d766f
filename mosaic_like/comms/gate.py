"""The door to the network: a listening socket that can be shut while it is crowded.

libzmq accepts whoever comes, up to the last descriptor of the process. So the socket
that listens is made here, and counts who is in; past a limit the kernel drops the
packets that would open another connection, by a filter on the socket. Who is in stays;
who was kept out tries again by itself, after a second and then ever later, as TCP does,
until there is room or its own time is over.

Who may stay, once in, is decided by keys: see ``security``.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import struct
from typing import Final

from ..errors import AddressInUse
from .addresses import host_and_port

CONNECTIONS: Final = 1024
_BACKLOG: Final = 512  # that wait to be accepted
# From Linux's asm-generic/socket.h; Python has no names for them. Elsewhere the door
# cannot be shut, and libzmq's handshake limit alone clears the crowd.
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET: keep 0 bytes


class Gate:
    """A socket that listens, and who came in by it.

    Args:
        address: ``tcp://number:port``; ``*`` is a free port.
        limit: connections; None is CONNECTIONS, or half of the files that this process
            may have open if that is less.

    Raises:
        AddressInUse: somebody else listens there; choose another port.
    """

    def __init__(self, address: str, limit: int | None = None) -> None:
        if limit is None:
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit = CONNECTIONS
            if files != resource.RLIM_INFINITY:
                limit = min(limit, files // 2)
        self.limit = limit
        self._inside: set[int] = set()  # descriptors
        self._is_shut = False
        any_port = address.endswith(":*")
        host, port = host_and_port(address[:-1] + "0" if any_port else address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self._socket.close()
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    error.errno, f"{address} is taken; choose another port"
                ) from None
            raise
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        self.address = f"tcp://{shown}:{self._socket.getsockname()[1]}"

    def __len__(self) -> int:
        return len(self._inside)

    @property
    def is_shut(self) -> bool:
        """Nobody comes in now."""
        return self._is_shut

    def duplicate(self) -> int:
        """The listening descriptor once more, for who accepts, and closes it."""
        return self._socket.dup().detach()

    def entered(self, fd: int) -> None:
        """A connection was accepted, with this descriptor."""
        # A number that is there already: its end was not told.
        self._inside.add(fd)
        if len(self._inside) >= self.limit and not self.is_shut:
            self._shut()

    def left(self, fd: int) -> None:
        """The connection of this descriptor has ended."""
        self._inside.discard(fd)
        if self.is_shut and len(self._inside) < self.limit:
            self._is_shut = False
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def _shut(self) -> None:
        import ctypes  # which few need, and hardly ever

        self._is_shut = True
        code = ctypes.create_string_buffer(_DROP_ALL)
        program = struct.pack("HP", 1, ctypes.addressof(code))
        with contextlib.suppress(OSError):  # no Linux
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
