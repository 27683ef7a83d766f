"""What a node leaves for a worker whose loop cannot run: one call to be interrupted.

A C call that holds the interpreter stops the worker's loop, so that no message reaches
it; but many look for signals now and then, and the handler runs inside them. It finds
here which call is meant: eight bytes and one more, in the run directory.

They stand there as the target of a link, which needs no room beside its own name: calls
are to end also where the run directory is full.
"""

from __future__ import annotations

import contextlib
import os
import struct

_LAYOUT = struct.Struct("<QB")


def path_of(directory: str, pid: int) -> str:
    """Where the orders for a worker are."""
    return os.path.join(directory, f"i{pid}")


def write(path: str, uid: int, late: bool) -> None:
    """Leave an order: this call is to end; ``late``: its time is over."""
    draft = f"{path}.new"
    forget(draft)  # one that could not be put in its place
    os.symlink(_LAYOUT.pack(uid, late).hex(), draft)
    os.replace(draft, path)  # who reads sees one order or the other


def read(path: str) -> tuple[int, bool]:
    """The last order; uid 0: there is none."""
    try:
        uid, late = _LAYOUT.unpack(bytes.fromhex(os.readlink(path)))
    except (OSError, ValueError, struct.error):
        return 0, False
    return uid, bool(late)


def forget(path: str) -> None:
    """The worker has ended."""
    with contextlib.suppress(OSError):
        os.unlink(path)
