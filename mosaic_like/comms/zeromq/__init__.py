"""The transport between processes: the only package that imports zmq.

One ROUTER for each process that only receives (``receiver``), one DEALER for each peer
that only sends (``channel``). Where it can be reached over the network there is a
second ROUTER for that, which speaks CURVE (``network``); see ``security`` for who is
let in, ``gate`` for how many, ``splitting`` for what its frames look like. Numbers,
keeping and repeating are the link's.

Everything runs on the thread of the loop that the transport was made for, by
``add_reader``, so it costs nothing while nothing arrives.
"""

from __future__ import annotations

from .network import check_libzmq, libzmq_version, new_keys
from .sockets import KEPT_FRAME_BYTES
from .transport import IPC_PATH_BYTES, ZmqTransport, check_ipc_path

__all__ = (
    "IPC_PATH_BYTES",
    "KEPT_FRAME_BYTES",
    "ZmqTransport",
    "check_ipc_path",
    "check_libzmq",
    "libzmq_version",
    "new_keys",
)
