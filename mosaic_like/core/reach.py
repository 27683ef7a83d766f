"""At which of its addresses a member is reached: by whom, and why.

Every runtime listens on an ipc socket, which the directory it is in guards, and those
of a cluster that has an ``address=`` on a tcp socket too, which keys guard. Who sends
chooses, alone and each time that it learns of a member:

* the same ``machine``: ipc, and large values go through shared memory;
* else tcp, and large values go in chunks;
* a member that has no tcp address is tried over ipc in any case: a container may share
  the directory of the sockets with its host, and nothing else.

``machine`` is a digest of what has to be the same for the first to work: the running
kernel, the user, and the namespaces of processes, files and network
(``runtimes.machine``). Two for whom one of these differs could perhaps share more than
they are taken for: what that costs is time. The name of a host decides nothing: it is
for people, and two hosts may have the same.

What is bound, and whether it can be reached at all, is not known here.
"""

from __future__ import annotations

from typing import Protocol


class Reachable(Protocol):
    """Of a Member, or of a Hello."""

    @property
    def address(self) -> str: ...

    @property
    def tcp(self) -> str: ...

    @property
    def machine(self) -> str: ...


def is_near(one: Reachable, other: Reachable) -> bool:
    """Whether they share memory, sockets in files, and the numbers of processes."""
    return one.machine == other.machine


def endpoint(me: Reachable, other: Reachable) -> str:
    """Where to connect to, to send to ``other``.

    >>> from mosaic_like.comms.messages import Member
    >>> here = Member(1, "head", b"", "ipc:///a", "x", 1, "tcp://10.0.0.1:9", "A")
    >>> there = Member(2, "node:1", b"", "ipc:///a", "x", 1, "tcp://10.0.0.2:9", "B")
    >>> endpoint(here, here), endpoint(here, there)
    ('ipc:///a', 'tcp://10.0.0.2:9')
    """
    return other.address if is_near(me, other) or not other.tcp else other.tcp
