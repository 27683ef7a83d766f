"""How often and how soon a node replaces its dead workers."""

from __future__ import annotations

from mosaic_like.core.node import (
    FIRST_DELAY_S,
    FORK_AGAIN_S,
    MOST,
    PERIOD_S,
    WAREHOUSE_AGAIN_S,
    Replacements,
    Replacing,
)


def test_each_further_replacement_of_a_minute_waits_twice_as_long() -> None:
    replacements = Replacements()
    delays = [replacements.delay_s(float(i)) for i in range(MOST)]
    assert delays == [FIRST_DELAY_S * 2**i for i in range(MOST)]


def test_after_five_in_a_minute_none_is_replaced_soon() -> None:
    replacements = Replacements()
    for i in range(MOST):
        replacements.delay_s(float(i))
    assert replacements.delay_s(PERIOD_S - 1) is None


def test_a_minute_later_they_are_replaced_again() -> None:
    replacements = Replacements()
    for _ in range(MOST):
        replacements.delay_s(0.0)
    assert replacements.delay_s(PERIOD_S) is None
    assert replacements.delay_s(PERIOD_S + 0.1) == FIRST_DELAY_S


def test_those_beyond_five_come_when_the_minute_of_the_first_is_over() -> None:
    replacements = Replacements(20.0)
    for i in range(MOST):
        replacements.delay_s(float(i))
    # Seven die at once: no six of all that come are within one period.
    for later_s in (20, 21, 22, 23, 24, 40, 41):
        assert replacements.delay_s(10.0) is None
        assert replacements.later_s(10.0) == later_s - 10
    assert replacements.delay_s(39.0) is None
    assert replacements.delay_s(45.0) == FIRST_DELAY_S * 4


def test_a_worker_that_dies_too_often_is_told_of_and_comes_later() -> None:
    replacing = Replacing(20.0)
    soon = [replacing.died("worker:0:1", "exit status 1", 0.0) for _ in range(MOST)]
    assert soon == [(FIRST_DELAY_S * 2**i, "") for i in range(MOST)]
    delay_s, told = replacing.died("worker:0:1", "exit status 1", 5.0)
    assert delay_s == 15.0
    assert told.startswith("w0:1 ended (exit status 1) and is replaced in 15 s only")


def test_the_warehouse_is_tried_for_ever_and_told_of_once_in_a_row() -> None:
    replacing = Replacing()
    for _ in range(MOST):
        assert replacing.died("warehouse:0", "killed", 0.0)[1] == ""
    first, *others = [replacing.died("warehouse:0", "killed", 1.0) for _ in range(3)]
    assert first[0] == WAREHOUSE_AGAIN_S
    assert "is started again every 10 s" in first[1]
    assert others == [(WAREHOUSE_AGAIN_S, "")] * 2
    assert replacing.died("warehouse:0", "killed", PERIOD_S + 1) == (FIRST_DELAY_S, "")
    for _ in range(MOST - 1):
        replacing.died("warehouse:0", "killed", PERIOD_S + 1)
    assert replacing.died("warehouse:0", "killed", PERIOD_S + 2)[1] != ""


def test_what_could_not_be_forked_uses_up_no_replacement_and_is_told_of_once() -> None:
    replacing = Replacing()
    how = "could not be forked: no"
    delay_s, told = replacing.not_forked("helper:0:1", how)
    assert delay_s == FORK_AGAIN_S
    assert told.startswith("h0:1 could not be forked: no: that is tried again")
    for uid in ("worker:0:0", "warehouse:0") * MOST:
        assert replacing.not_forked(uid, how) == (FORK_AGAIN_S, "")
    replacing.started()
    assert replacing.not_forked("worker:0:0", how)[1] != ""
    assert replacing.died("worker:0:0", how, 0.0) == (FIRST_DELAY_S, "")
