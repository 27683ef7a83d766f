"""Payloads whose description contradicts itself are refused."""

from __future__ import annotations

import pytest

from mosaic_like.comms.checks import check_extra
from mosaic_like.comms.messages import (
    SEGMENT,
    TASK,
    Extra,
    Known,
    Parts,
    Place,
    Reference,
    SharedBuffers,
)
from mosaic_like.errors import ProtocolError

TASKS = Reference(TASK, 1, 2)
HERE = Place(1, 2, 3, 4, 4096)
ONE = Reference(SEGMENT, 7, 3)
TWO = SharedBuffers([HERE], [(0, 0, 64), (0, 64, 4032)])


def test_what_the_serializer_makes_is_taken() -> None:
    check_extra(Extra(), 0)
    check_extra(Extra([Reference(TASK, 1, 2)], buffers=2), 2)
    check_extra(Extra([Reference(TASK, 1, 2), ONE], shared=TWO), 0)
    check_extra(Extra(parts=Parts(1, [10, 0])), 0)
    check_extra(Extra([TASKS], known=[Known(0, b"1"), Known(0, b"", [ONE], TWO)]), 0)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (Extra(buffers=1), "0 buffers came, expected 1"),
        (Extra(buffers=-1), "expected -1"),
        (Extra(size=-5), "-5 bytes"),
        (Extra(retried=(-1, 1)), "nothing can be"),
        (Extra([Reference(5, 1, 2)]), "nothing can be"),
        (Extra([Reference(TASK, -1, 2)]), "nothing can be"),
        (Extra([Reference(TASK, 1, 0)]), "nothing can be"),
        (Extra([Reference(TASK, 1, 1 << 23)]), "nothing can be"),
        (Extra(shared=TWO), "1 places for 0 segments"),
        (Extra([ONE, ONE], shared=TWO), "1 places for 2 segments"),
        (Extra([ONE], shared=SharedBuffers([HERE], [(1, 0, 1)])), "in segment 1 of 1"),
        (Extra([ONE], shared=SharedBuffers([HERE], [(-1, 0, 1)])), "in segment -1"),
        (Extra([ONE], shared=SharedBuffers([HERE], [(0, 4000, 97)])), "97 bytes"),
        (Extra([ONE], shared=SharedBuffers([HERE], [(0, -8, 8)])), "at -8"),
        (Extra([ONE], shared=SharedBuffers([Place(1, 2, 3, 4, 0)], [])), "of 0 bytes"),
        (Extra(parts=Parts(1, [4, -1])), "-1"),
        (Extra(known=[Known(0, b"1")]), "0 are mentioned"),
        (Extra([TASKS], known=[Known(-1, b"1")]), "of -1"),
        (Extra([ONE], known=[Known(0, b"1")], shared=TWO), "no task"),
        (Extra([TASKS], known=[Known(0, b"1", [TASKS])]), "more than segments"),
        (Extra([TASKS], known=[Known(0, b"1", [ONE])]), "in none"),
        (Extra([TASKS], known=[Known(0, b"1", [], TWO)]), "places for 0 segments"),
    ],
)
def test_what_does_not_agree_with_itself_is_refused(extra: Extra, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        check_extra(extra, 0)
