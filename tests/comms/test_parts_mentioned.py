"""What an envelope says of tasks of which a call takes only parts."""

from __future__ import annotations

from typing import Any

import pytest

from mosaic_like.comms import messages as wire
from mosaic_like.comms.checks import check_extra
from mosaic_like.comms.gathering import carries_key
from mosaic_like.comms.serialization import Payload, Referent, Serializer
from mosaic_like.errors import ProtocolError


class Task:
    kind = wire.TASK
    owner = 4

    def __init__(self, uid: int) -> None:
        self.uid = uid


class Mention(Referent):
    def __init__(self, task: Task, *args: Any) -> None:
        self.task = task
        self.args = args

    def __reference__(self) -> tuple[Task, tuple[Any, ...]]:
        return self.task, self.args


def outputs_of(*mentions: Mention) -> tuple[tuple[int, int | str], ...]:
    payload = Serializer().dumps_call((list(mentions),), {})
    assert type(payload) is Payload
    return payload.outputs


def part(task: Task, key: Any) -> Mention:
    return Mention(task, "output", key)


def test_the_envelope_says_which_parts_are_taken() -> None:
    a, b = Task(1), Task(2)
    found = outputs_of(part(a, 0), part(b, "k"), part(a, 0), part(a, -1))
    assert found == ((0, 0), (1, "k"), (0, -1))


def test_who_takes_the_whole_too_takes_no_parts() -> None:
    a, b = Task(1), Task(2)
    assert outputs_of(part(a, 0), Mention(a, "task"), part(b, 1)) == ((1, 1),)
    assert outputs_of(Mention(a, "task"), part(a, 0)) == ()


@pytest.mark.parametrize("key", [True, 1.0, (0,), None, 1 << 63, "\ud800", b"k"])
def test_a_key_that_no_message_carries_takes_the_whole(key: Any) -> None:
    assert not carries_key(key)
    assert outputs_of(part(Task(1), key), part(Task(1), 0)) == ()


def test_nothing_of_one_call_is_said_of_the_next() -> None:
    serializer = Serializer()
    first: Any = serializer.dumps_call((part(Task(1), 0),), {})
    second: Any = serializer.dumps_call((Mention(Task(2), "task"),), {})
    third: Any = serializer.dumps_call((part(Task(3), 1),), {})
    assert [p.outputs for p in (first, second, third)] == [((0, 0),), (), ((0, 1),)]


def test_a_message_carries_keys_of_both_kinds() -> None:
    references = [wire.Reference(wire.TASK, 9, 4)]
    extra = wire.Extra(references, outputs=((0, -(1 << 63)), (0, "\u00e9")))
    sent = wire.Submit(1, 2, 0, "m", b"N", extra)
    (came,) = wire.decode(bytes(wire.encode([sent])))
    assert [tuple(o) for o in came.extra.outputs] == list(extra.outputs)
    check_extra(came.extra, 0)


@pytest.mark.parametrize("index", [-1, 1])
def test_parts_of_what_is_not_mentioned_are_refused(index: int) -> None:
    references = [wire.Reference(wire.TASK, 9, 4)]
    with pytest.raises(ProtocolError, match="parts"):
        check_extra(wire.Extra(references, outputs=((index, 0),)), 0)
