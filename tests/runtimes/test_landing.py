"""The memory in which buffers that come in chunks are put together."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_like.comms.gathering import Mapped
from mosaic_like.runtimes.landing import BLOCK_BYTES, Pool

SIZE = 2 * BLOCK_BYTES


def test_a_block_is_used_again_when_the_last_view_has_gone() -> None:
    pool = Pool()
    memory = pool.take(SIZE)
    memory[:5] = b"first"
    array = np.frombuffer(memory.toreadonly(), "u1")
    part = array[:5]
    assert isinstance(memory.obj, Mapped)
    del memory, array
    assert not pool.free_bytes
    other = pool.take(SIZE)
    other[:5] = b"other"
    assert bytes(part) == b"first"
    del part
    assert pool.free_bytes == SIZE
    assert bytes(pool.take(SIZE - 10)[:5]) == b"first"


def test_a_view_has_just_the_bytes_that_were_asked_for() -> None:
    pool = Pool()
    for nbytes in (0, 1, BLOCK_BYTES, BLOCK_BYTES + 1):
        assert pool.take(nbytes).nbytes == nbytes


def test_no_more_is_kept_than_may_be() -> None:
    pool = Pool(free_bytes=SIZE)
    both = [pool.take(SIZE), pool.take(SIZE)]
    both.clear()
    assert pool.free_bytes == SIZE


def test_what_is_not_used_for_a_while_is_let_go() -> None:
    pool = Pool()
    pool.take(SIZE)
    assert pool.trim()
    assert not pool.trim()
    assert not pool.free_bytes


def test_what_is_in_use_is_not_let_go() -> None:
    pool = Pool()
    memory = pool.take(SIZE)
    assert not pool.trim()
    del memory
    assert pool.trim()
    assert pool.free_bytes == SIZE


@pytest.mark.parametrize("nbytes", [1 << 62, 1 << 63, 1 << 80])
def test_memory_that_cannot_be_had_is_an_error(nbytes: int) -> None:
    with pytest.raises(OSError, match="memory"):
        Pool().take(nbytes)
