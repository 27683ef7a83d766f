"""Who leaves hears the others out, and its heir counts as it would have counted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms import messages as wire
from mosaic_like.core.holders import HolderTable
from mosaic_like.core.leaving import Departure
from mosaic_like.ids import NUMBER_BITS

LEAVER, HEIR, A, B, C = 2, 3, 4, 5, 6
X = (A << NUMBER_BITS) + 1


def call(number: int, extra: wire.Extra | None = None, inside: Any = None) -> Any:
    uid = (A << NUMBER_BITS) + number
    return wire.Submit(uid, X, 0, "m", b"N", extra, inside)


def test_it_waits_for_all_that_live_and_for_those_that_join() -> None:
    departure = Departure([A, B])
    departure.seen(A, 10)
    departure.joined(C)
    assert departure.waited == {B, C}
    departure.lost(B)
    assert departure.waited
    departure.seen(C, 1)
    departure.joined(A)  # which has answered already
    assert not departure.waited


def test_calls_run_that_were_made_before_or_inside_of_such() -> None:
    departure = Departure([A])
    assert not departure.refuses(call(12))  # its caller does not know yet
    departure.seen(A, call(10).uid)
    assert not departure.refuses(call(9))
    assert departure.refuses(call(11))
    assert not departure.refuses(call(11, inside=[call(10).uid]))
    assert departure.refuses(call(11, inside=[call(11).uid, call(9).uid]))
    assert not departure.refuses(call(11, wire.Extra(kind=wire.CLOSE)))


def test_when_all_is_closing_no_call_runs() -> None:
    departure = Departure([A])
    departure.closing = True
    assert departure.refuses(call(1))
    assert departure.refuses(call(1, inside=[7]))
    assert not departure.refuses(call(1, wire.Extra(kind=wire.KILL)))


class Owned:
    """Notes what is freed."""

    def __init__(self) -> None:
        self.gone: list[int] = []

    def freed(self, uid: int) -> None:
        self.gone.append(uid)


def histories() -> st.SearchStrategy[list[tuple[int, str, int]]]:
    """What three runtimes say of one object, each only of what it holds.

    Entries: who says it, ``retain`` or ``release``, and of whom or by whom it holds it.
    """

    @st.composite
    def build(draw: Any) -> list[tuple[int, str, int]]:
        held = {(A, A): 1}
        said = []
        for _ in range(draw(st.integers(0, 12))):
            here = sorted(key for key, count in held.items() if count)
            if not here:
                break
            holder, granter = draw(st.sampled_from(here))
            if draw(st.booleans()):
                to = draw(st.sampled_from([one for one in (A, B, C) if one != holder]))
                said.append((holder, "retain", to))
                held[to, holder] = held.get((to, holder), 0) + 1
            else:
                said.append((holder, "release", granter))
                held[holder, granter] -= 1
        return said

    return build()


def say(table: HolderTable, said: tuple[int, str, int]) -> None:
    who, what, other = said
    if what == "retain":
        table.retain(who, X, other)
    elif who == other:
        table.release(who, [X])
    else:
        table.release_grants(who, [(X, other)])


@given(histories(), st.data())
def test_nothing_is_freed_too_early_or_kept_for_ever_over_a_move(
    said: list[tuple[int, str, int]], data: Any
) -> None:
    here, there = Owned(), Owned()
    old, new = HolderTable(LEAVER, here), HolderTable(HEIR, there)
    old.add(X)
    # From when on each tells the heir.
    knows = {
        who: data.draw(st.integers(0, len(said)), label=f"{who} knows")
        for who in (A, B, C)
    }
    early = [one for at, one in enumerate(said) if at < knows[one[0]]]
    late = [one for at, one in enumerate(said) if at >= knows[one[0]]]
    for one in early:
        say(old, one)
    freed_before = bool(here.gone)
    if not freed_before:
        new.inherit(X, old.counted(X), LEAVER)
        new.lost(LEAVER, (A, B, C))
    # Each of its own in order, those of others in between as it comes.
    order = data.draw(st.permutations([one[0] for one in late]), label="order")
    lines = {who: [one for one in late if one[0] == who] for who in (A, B, C)}
    held = {(A, A): 1}
    for who, what, other in said:
        key, by = ((other, who), 1) if what == "retain" else ((who, other), -1)
        held[key] = held.get(key, 0) + by
    for who in order:
        if there.gone or freed_before:
            break
        say(new, lines[who].pop(0))
    assert not there.gone, "not all have said what they kept"
    for who in (A, B, C):
        new.loss_seen(who, LEAVER)
    in_use = any(held.values())
    assert bool(here.gone or there.gone) == (not in_use)
