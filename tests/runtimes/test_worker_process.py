"""The thread that runs methods: how it is scheduled."""

from __future__ import annotations

import os
import threading

import pytest

from mosaic_like.runtimes.worker_process import _give_way

pytestmark = pytest.mark.skipif(
    not hasattr(os, "SCHED_BATCH"), reason="there are no such policies here"
)


def policy_after(policy: str) -> int:
    """Of a thread that had this one: each has its own."""
    found = []

    def work() -> None:
        os.sched_setscheduler(0, getattr(os, policy), os.sched_param(0))
        _give_way()
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


def test_it_gives_way_unless_it_was_given_another_policy() -> None:
    assert policy_after("SCHED_OTHER") == os.SCHED_BATCH
    assert policy_after("SCHED_IDLE") == os.SCHED_IDLE, "by 'chrt --idle 0'"
