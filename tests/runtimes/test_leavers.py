"""What is kept for the heir of one that leaves, and who gets it."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

from mosaic_like.comms import messages as wire
from mosaic_like.runtimes.leavers import Leavers

ME, FIRST, SECOND, THIRD = 5, 10, 11, 12
SAID = wire.Retain(1, 2)


class Runtime:
    """One that holds what others have; it notes what it sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Any]] = []
        self.incarnation = ME
        self.outboxes = {to: self._outbox(to) for to in (FIRST, SECOND, THIRD)}
        self.members = {
            to: wire.Member(to, f"warehouse:{to}", b"", "", "", 1)
            for to in self.outboxes
        }
        self.uids = count(1)
        self.functions = None
        self.restarts = SimpleNamespace(leaving=lambda incarnation: None)
        self.caller = SimpleNamespace(asking=SimpleNamespace(moved=lambda *_: None))
        self.grants = SimpleNamespace(moved=lambda *_: None)
        self.peers = SimpleNamespace(tick_soon=lambda: None)
        self.outbox = self.outboxes.get

    def _outbox(self, to: int) -> Any:
        def send(message: Any) -> None:
            self.sent.append((to, message))

        return SimpleNamespace(send=send, flush=lambda: None, releases=[])

    def leaving_changed(self) -> None:
        pass

    def told(self, to: int) -> list[Any]:
        said = [m for whom, m in self.sent if whom == to]
        return [m for m in said if not isinstance(m, wire.LeavingSeen)]


def leavers(runtime: Any, *leaving: int) -> Leavers:
    made = Leavers(runtime)
    for one in leaving:
        made.on_leaving(wire.Leaving(one, None, False), (), 1)
    return made


def left(who: int, heir: int) -> wire.Lost:
    return wire.Lost(who, f"warehouse:{who}", "it was drained", b"", wire.LEFT, heir)


def test_what_is_kept_goes_to_the_heir() -> None:
    runtime = Runtime()
    made = leavers(runtime, FIRST)
    assert made.keep(FIRST, SAID)
    assert not made.keep(SECOND, SAID)
    made.gone(left(FIRST, SECOND))
    assert runtime.told(SECOND) == [SAID]


def test_what_is_kept_for_an_heir_that_leaves_too_goes_to_the_heir_of_that() -> None:
    runtime = Runtime()
    made = leavers(runtime, FIRST, SECOND)
    made.keep(FIRST, SAID)
    made.gone(left(FIRST, SECOND))
    assert runtime.told(SECOND) == []  # it has handed on, or is about to
    made.gone(left(SECOND, THIRD))
    assert runtime.told(THIRD) == [SAID]
