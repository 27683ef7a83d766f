"""What is kept of calls that may have to be sent again."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

from mosaic_like.comms.messages import STREAM, Extra, Submit
from mosaic_like.core.call import Call, Stream, rare
from mosaic_like.core.restarts import Follower
from mosaic_like.runtimes.following import Following, advice
from mosaic_like.runtimes.kept import Followed, Kept


class Wire:
    """Takes what is sent."""

    incarnation = 5
    shares_memory = True

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.releases: list[int] = []
        self.bytes_out = 0

    def send(self, message: Any, payload: Any = None) -> None:
        self.sent.append(message)


class Handle:
    """Of the tessera."""


class Line:
    """A stream whose outbox keeps its calls, and how they end."""

    def __init__(self) -> None:
        self.stream = Stream(1, "Counter#1")
        self.calls: dict[int, Call] = {}
        self.wire = Wire()
        self.handle: Any = Handle()
        handles: Any = weakref.WeakSet([self.handle])
        peer: Any = self.wire
        self.kept = Kept(peer, self.stream, self.calls, handles)
        self.stream.outbox = self.kept

    def send(self, uid: int, extra: Extra | None = None) -> None:
        call = self.calls[uid] = Call(uid, self.stream, "add", None, 0, 0.0)
        rare(call).reason = "lost"
        self.kept.send(Submit(uid, 1, 0, "add", b"d", extra))

    def end(self, *uids: int) -> None:
        """The end of a batch in which these have ended, as CallerState has it."""
        for uid in uids:
            del self.calls[uid]
        watchers, self.stream.watchers = self.stream.watchers, []
        for watcher in watchers:
            watcher()

    @property
    def uids(self) -> list[int]:
        return [message.uid for message, _ in self.kept.sent]


def test_calls_are_kept_until_they_end_and_the_handle_with_them() -> None:
    line = Line()
    for uid in (1, 2, 3):
        line.send(uid)
    assert line.uids == [1, 2, 3]
    held = weakref.ref(line.handle)
    line.handle = None
    line.end(2)
    assert line.uids == [1, 2, 3]  # as the first has not ended
    line.end(1)
    assert line.uids == [3]
    gc.collect()
    assert held() is not None
    line.end(3)
    assert line.uids == []
    gc.collect()
    assert held() is None
    assert list(line.stream.watchers) == []


def test_what_waited_for_a_life_waits_no_longer_when_it_is_sent() -> None:
    line = Line()
    line.send(1)
    assert line.calls[1].rare.reason is None


def test_a_remote_generator_is_not_kept() -> None:
    line = Line()
    line.send(1, Extra(kind=STREAM))
    assert line.uids == []
    assert len(line.wire.sent) == 1


def test_behind_a_call_that_does_not_end_others_are_not_kept_for_ever() -> None:
    line = Line()
    line.send(0)
    most = 0
    for uid in range(1, 5000):
        line.send(uid)
        line.end(uid)
        most = max(most, len(line.uids))
    assert most < 1000
    assert line.uids[0] == 0


def test_when_its_runtime_is_lost_what_was_sent_is_given_back_once() -> None:
    line = Line()
    line.send(1)
    assert [message.uid for message, _ in line.kept.take()] == [1]
    assert not line.kept.take()
    line.stream.error = "lost"
    line.end(1)
    assert list(line.stream.watchers) == []


def test_that_a_call_ran_before_is_known_until_it_has_ended() -> None:
    """Also over a life that is up, in which it has not started."""
    line = Line()
    line.calls[2] = Call(2, line.stream, "add", None, 0, 0.0)
    followed = Followed(7, line.stream, Follower(lambda _: False), (True, 0, b""))
    followed.ran = {1: b"the first death", 2: b"the second"}
    runtime: Any = SimpleNamespace(caller=SimpleNamespace(calls=line.calls))
    Following(runtime).forget_ended(followed)
    assert followed.ran == {2: b"the second"}


def test_nobody_is_told_to_say_what_has_been_said() -> None:
    line = Line()
    line.send(1)
    line.send(2)
    rare(line.calls[2]).idempotent = True
    assert advice(line.calls[1]).endswith("no harm, or let idempotent=True do so")
    assert advice(line.calls[2]).endswith("make it again if that does no harm")
    line.kept.idempotent = True
    assert advice(line.calls[1]) == advice(line.calls[2])
