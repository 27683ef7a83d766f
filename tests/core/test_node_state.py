"""How often and how soon a node replaces its dead workers."""

from __future__ import annotations

from mosaic_like.core.node import FIRST_DELAY_S, MOST, PERIOD_S, Replacements


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
