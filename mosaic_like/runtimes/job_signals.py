"""Signals that a job's engine sends to all processes of the job at once.

When a job is cancelled or its time is nearly over, Slurm and others signal not the
program alone but whatever runs in the job, workers too. What is to be done then, the
program says (``on_deadline``): until it ends, all that serves it has to stay. So the
processes of a cluster that is in a job take these signals and do nothing.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

# Slurm and LSF send the second if they are told to, Grid Engine the third by -notify.
SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# Each process gets it from the engine and from who passes it on: that is one.
SAME_S: Final = 1.0


def leave_to_program() -> None:
    """Have them do nothing in this process; on its main thread."""
    _take_no_notice(SIGNALS)


def leave_to_owner() -> None:
    """The same for one that is told to leave, by SIGTERM or by who has started it.

    A node that has joined from a job of its own, and its workers, get the others too:
    from them ``mrun --node`` knows that it is to leave, and its processes are not to
    end before.
    """
    _take_no_notice(number for number in SIGNALS if number != signal.SIGTERM)


def _take_no_notice(numbers: Iterable[signal.Signals]) -> None:
    # By a handler rather than by ignoring them: what user code starts in a worker would
    # ignore them too.
    for number in numbers:
        signal.signal(number, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass
