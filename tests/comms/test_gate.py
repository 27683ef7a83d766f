"""How many may connect."""

from __future__ import annotations

import contextlib
import select
import socket
from typing import TYPE_CHECKING

import pytest

from mosaic_like.comms.addresses import host_and_port
from mosaic_like.comms.gate import Gate
from mosaic_like.errors import AddressInUse

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT_S = 0.3
WAIT_S = 20.0


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate("tcp://127.0.0.1:*", limit=2)
    yield gate
    gate.close()


def is_open(gate: Gate) -> bool:
    try:
        with socket.create_connection(host_and_port(gate.address), SHORT_S):
            return True
    except TimeoutError:
        return False


def test_past_the_limit_nobody_comes_in_until_somebody_has_left(gate: Gate) -> None:
    seen = []
    for act, fd in ((gate.entered, 10), (gate.entered, 11), (gate.left, 10)):
        act(fd)
        seen.append((len(gate), gate.is_shut, is_open(gate)))
    assert seen == [(1, False, True), (2, True, False), (1, False, True)]


def test_who_waits_outside_comes_in_by_itself(gate: Gate) -> None:
    gate.entered(10)
    gate.entered(11)
    with socket.socket() as outside:
        outside.settimeout(SHORT_S)
        with contextlib.suppress(TimeoutError):
            outside.connect(host_and_port(gate.address))
        gate.left(11)
        assert select.select([], [outside], [], WAIT_S)[1]
        assert outside.getpeername() == host_and_port(gate.address)


def test_a_descriptor_that_is_used_again_counts_once(gate: Gate) -> None:
    gate.entered(10)
    gate.entered(10)
    assert len(gate) == 1
    gate.left(10)
    gate.left(10)
    assert len(gate) == 0


def test_a_taken_port_is_named(gate: Gate) -> None:
    with pytest.raises(AddressInUse, match="is taken; choose another port"):
        Gate(gate.address)
