"""A worker tells its node that it stands still, also where psutil says nothing."""

from __future__ import annotations

import errno
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
import pytest

from mosaic_like.comms import messages as wire
from mosaic_like.core.stillness import QUIET_S
from mosaic_like.runtimes.standstill import Standstill

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeLoop:
    """Its clock goes on only when it calls what was left with it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.later: list[Callable[[], object]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(
        self, delay_s: float, function: Callable[[], object], context: object
    ) -> None:
        self.later.append(function)

    def go_on(self, by_s: float) -> None:
        self.now_s += by_s
        later, self.later = self.later, []
        for function in later:
            function()


def sent_by_a_worker_that_waits() -> list[Any]:
    """What its node is sent while a call of it waits for a long time."""
    sent: list[Any] = []
    worker = SimpleNamespace(
        loop=FakeLoop(),
        context=None,
        executor=SimpleNamespace(
            main=SimpleNamespace(stack=[SimpleNamespace(uid=5)]),
        ),
        worker=SimpleNamespace(tasks={}),
        node=SimpleNamespace(send=sent.append),
        stopping=False,
    )
    Standstill(worker).arm()  # type: ignore[arg-type]  # a fake
    for _ in range(4):
        worker.loop.go_on(QUIET_S)
    return sent


@pytest.fixture(autouse=True)
def _this_process_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 1.0)


def told(sent: list[Any]) -> bool:
    return [type(message) for message in sent] == [wire.Still]


def test_the_node_is_told_of_a_call_that_stands_still() -> None:
    assert told(sent_by_a_worker_that_waits())


def test_it_is_told_where_there_is_no_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert told(sent_by_a_worker_that_waits())


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), psutil.NoSuchProcess(1)]
)
def test_it_is_told_where_psutil_can_say_nothing(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(psutil.Process, "children", fail)
    assert told(sent_by_a_worker_that_waits())


def test_a_child_that_cannot_be_looked_at_hides_no_standstill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    child = psutil.Process()
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: [child])
    monkeypatch.setattr(psutil.Process, "cpu_times", fail)
    assert told(sent_by_a_worker_that_waits())
