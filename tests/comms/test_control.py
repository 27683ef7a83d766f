"""How large messages without a value may be: who makes them, and who receives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic
from mosaic_like.comms import messages as wire
from mosaic_like.comms.control import CONTROL, oversized
from mosaic_like.config import Config
from mosaic_like.core.names import KEY_CHARACTERS, NAME_BYTES
from mosaic_like.tasks.concurrency import MOST_TAGS, TAG_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = Config.make().control_limit
LEAST = {o.name: o.minimum for o in Config.options()}["control_limit"] or 0


def test_the_limit_is_1_mib_unless_somebody_says_so() -> None:
    assert LIMIT == 1 << 20
    assert Config.make(control_limit="4 MiB").control_limit == 4 << 20
    with pytest.raises(ValueError, match=r"at least 512\.0 KiB"):
        Config.make(control_limit=1000)


def test_only_control_messages_are_measured() -> None:
    large = "x" * LIMIT
    batch: list[Any] = [
        wire.SetLimit(large, 1),
        wire.Submit(1, 2, 3, "f", large.encode()),
        wire.SetLimit("tag:db", 1),
        wire.Release(list(range(LIMIT))),
        wire.Claim("name", large, 1, False),
    ]
    assert [index for index, _ in oversized(batch, LIMIT)] == [0, 4]


def test_a_kind_that_carries_a_payload_or_a_long_list_is_no_control_message() -> None:
    carriers = {wire.Submit, wire.Done, wire.Exited, wire.Ended, wire.Resent}
    long = {wire.Release, wire.HeldBy, wire.Names, wire.Welcome, wire.MemoryOf}
    assert not (carriers | long | {wire.Define}) & CONTROL
    assert {wire.Claim, wire.TakeSlots, wire.Cancel, wire.Hello, wire.Joined} <= CONTROL


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: mosaic.put(1, key="k" * (KEY_CHARACTERS + 1)), "a key of 16,385"),
        (lambda: mosaic.get("k" * (KEY_CHARACTERS + 1)), "a key of 16,385"),
        (lambda: mosaic.task(tags=["t" * 1000])(len), "960 characters more"),
        (lambda: mosaic.task(tags=map(str, range(MOST_TAGS + 1)))(len), "201 tags"),
        (
            lambda: mosaic.remote(dict, name="n" * (NAME_BYTES + 1)),
            "1 to 256 bytes",
        ),
    ],
)
def test_what_would_make_one_too_large_is_refused_where_it_is_given(
    make: Callable[[], Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mosaic_like.session.current", lambda: None)
    with pytest.raises(ValueError, match=text):
        make()


def test_the_largest_that_can_be_given_fits_into_the_least_limit() -> None:
    wide = "\U0001f600"  # 4 bytes
    slots = [wire.Slot(f"tag:{wide * TAG_CHARACTERS}")] * (2 * MOST_TAGS)
    name, most = "n" * 2 * NAME_BYTES, 2**63 - 1
    hops = [wire.Hop(most, most, 1, most, most, True, 9, name)] * 250
    for message in (
        wire.TakeSlots(most, slots, True),
        wire.Waiting(most, most, 1, True, hops),
        wire.Circle(most, text=wide * 2 * NAME_BYTES * 250),
        wire.Cancel(most, wide * 1000),
    ):
        assert len(wire.encode([message])) < LEAST
