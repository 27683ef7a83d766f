"""Who has seen a loss, as the monitor passes it on."""

from __future__ import annotations

from mosaic_like.comms.messages import SeenBy
from mosaic_like.core.relays import Relays


def test_each_owner_is_told_once_of_all_who_have_seen_a_loss() -> None:
    relays = Relays()
    assert relays.add(2, 9, [3, 4])
    assert not relays.add(3, 9, [4])
    assert not relays.add(4, 9, [])
    assert relays.take() == [(3, SeenBy(9, [2])), (4, SeenBy(9, [2, 3]))]
    assert relays.take() == []


def test_losses_are_told_apart() -> None:
    relays = Relays()
    assert relays.add(2, 8, [3])
    assert not relays.add(2, 9, [3])
    assert relays.take() == [(3, SeenBy(8, [2])), (3, SeenBy(9, [2]))]


def test_what_nobody_is_to_be_told_is_not_waited_for() -> None:
    relays = Relays()
    assert not relays.add(2, 9, [])
    assert relays.add(3, 9, [4])
