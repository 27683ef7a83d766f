"""Which machine this is, as far as members can share on it: see ``core.reach``."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# In which memory is opened by the number of a process, sockets by their path, and
# addresses mean the same.
_NAMESPACES = ("pid", "mnt", "net", "user")


def machine_id() -> str:
    """The same text for two processes of which each can open what the other shares."""
    parts = [str(os.geteuid())]
    try:
        parts.append(_BOOT_ID.read_text())
        parts += [str(os.stat(f"/proc/self/ns/{name}").st_ino) for name in _NAMESPACES]
    except OSError:  # no Linux, or no /proc: then there is no more than a name
        parts.append(socket.gethostname())
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()
