"""Versions of what both ends of a cluster use: where they differ, people are told.

That of the protocol and that of Python must be the same, and ``keys`` refuses others.
What stands here often goes well with another version; where it does not, the error is
far from its cause. Nothing is imported for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..comms.zeromq import libzmq_version
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

SAID: Final = "mosaic: other versions: "  # before what people are told
_LIBZMQ: Final = "libzmq"
_PACKAGES: Final = ("pyzmq", "cloudpickle", "numpy")


def versions() -> dict[str, str]:
    """Of this process; without what is not installed."""
    from importlib import metadata  # it takes longer than the rest of this

    found = {_LIBZMQ: libzmq_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def warning(theirs: Mapping[str, str]) -> str:
    """What people are told on the host that joins; empty: nothing.

    Args:
        theirs: as they stand in a cluster's key.
    """
    found = different(theirs, versions()) if theirs else ""
    return f"{SAID}{found}" if found else ""


def different(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """What is not the same, for people; empty: nothing.

    Args:
        theirs: of the program that has started the cluster; what is not in it counts
            for nothing.
        ours: of who joins it.

    >>> different({"numpy": "2.1.0", "pyzmq": "27"}, {"numpy": "1.26.4", "pyzmq": "27"})
    'numpy 1.26.4, in the cluster 2.1.0'
    """
    return "; ".join(
        printable(f"{name} {ours.get(name, 'is missing')}, in the cluster {version}")
        for name, version in theirs.items()
        if ours.get(name) != version
    )
