"""``runtime.drain``: to ask that one leaves, and to wait until it has.

What happens meanwhile is told in ``core.leaving``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.monitor import LEAVERS
from ..core.senders import Kind, kind_of
from ..errors import MonitorLost, NodeLost, WorkerDied
from ..ids import short
from .departing import ANSWER_S, HAND_ON_S
from .executor import CLOSE_TIMEOUT_S
from .storing import KEYS

if TYPE_CHECKING:
    from ..comms.messages import Member
    from .user import UserRuntime

# Beyond its timeout one that is drained takes so long at the most, unless it is frozen.
MARGIN_S = 2 * (ANSWER_S + CLOSE_TIMEOUT_S + HAND_ON_S)


async def drain(runtime: UserRuntime, where: Any, timeout: float | None) -> None:
    """See ``UserRuntime.drain``; on the runtime's loop."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout={timeout!r}: expected seconds, at least 0, or None")
    member = _member(runtime, where)
    _check(runtime, member)
    runtime.monitor.send(wire.Drain(member.incarnation, timeout))
    parts = [member, *_on(runtime, member)]
    limit_s = None if timeout is None else timeout + MARGIN_S
    try:
        async with asyncio.timeout(limit_s):
            while member.incarnation in runtime.members:
                if runtime.cluster_lost:
                    raise MonitorLost(runtime.cluster_lost, "monitor")
                await runtime.membership()
    except TimeoutError:
        raise TimeoutError(
            f"{member.uid} has not left in {limit_s:g} s, and does not answer: it is "
            "frozen, or something there holds its loop; what runs there goes on"
        ) from None
    _judge(runtime, member, parts)


def _judge(runtime: UserRuntime, member: Member, parts: list[Member]) -> None:
    """Raise if it has not left in order, or not all of its calls have ended."""
    late = []
    for part in parts:
        lost, cause = runtime.causes.get(part.incarnation, (part, "it is gone"))
        how = runtime.leavers.left.get(part.incarnation, wire.DIED)
        if how == wire.DIED and part is member:
            kind = NodeLost if member.uid.startswith("node") else WorkerDied
            text = f"{lost.uid} died while it was drained: {cause}"
            raise kind(f"{text}; make again what you need of it", lost.uid, cause=cause)
        if how == wire.LEFT_LATE:
            late.append(f"{short(part.uid)}: {cause}")
    if late:
        raise TimeoutError("; ".join(late))


def _on(runtime: UserRuntime, member: Member) -> list[Member]:
    """The workers of a node, and helpers."""
    if not member.uid.startswith("node"):
        return []
    index = member.uid.split(":")[1]
    parts = (*runtime.of_kind("worker"), *runtime.of_kind("helper"))
    return [m for m in parts if m.uid.split(":")[1] == index]


def _member(runtime: UserRuntime, where: Any) -> Member:
    uid = getattr(where, "uid", where)
    if not isinstance(uid, str):
        raise TypeError(
            f"drain({where!r}): expected a worker of runtime.workers, a node of "
            "runtime.nodes, or the uid of one"
        )
    known = [*runtime.of_kind("node"), *runtime.of_kind("worker")]
    for member in known:
        if member.uid == uid and where in (uid, runtime.info_of(member)):
            return member
    names = ", ".join(m.uid for m in known) or "none"
    raise LookupError(
        f"there is no worker or node {uid!r} any more; there are: {names}"
    )


def _check(runtime: UserRuntime, member: Member) -> None:
    """Refuse what would leave a cluster that cannot work."""
    kind, *indices = member.uid.split(":")
    assert kind in LEAVERS, "found among these"
    if kind_of(runtime.uid) is Kind.WORKER and (
        member.uid == runtime.uid or member in (_node_of(runtime),)
    ):
        raise RuntimeError(
            f"{member.uid} is to be drained by what runs on it, which would wait for "
            "itself: have another worker or the program do it"
        )
    rest = [m for m in runtime.leavers.open(runtime.of_kind(kind)) if m is not member]
    if not rest:
        raise ValueError(
            f"{member.uid} is the last {kind}, and nothing could be made any more; to "
            "end the cluster call mosaic.stop()"
        )
    if kind == "node" and indices == [KEYS]:
        raise ValueError(
            f"the warehouse of {member.uid} has all values with a key, which cannot "
            "move: drain other nodes, or end the cluster by mosaic.stop()"
        )


def _node_of(runtime: UserRuntime) -> Member | None:
    uid = f"node:{runtime.uid.split(':')[1]}"
    return next((m for m in runtime.of_kind("node") if m.uid == uid), None)
