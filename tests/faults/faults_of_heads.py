"""F6, F20: the program itself is killed, or told to end, once or twice.

Nothing of its cluster may be there a moment later, and each of its actors was closed.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cells import Cell
from history import Event
from leftovers import processes_of
from program import EVERY_STREAM, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOUND_S = 5.0  # until all of a killed program's is gone
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}


@contextlib.contextmanager
def program(stage: Stage, seed: int, moment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program, as far as this moment."""
    script = str(Path(__file__).with_name("head_program.py"))
    command = [sys.executable, script, stage.folder, str(seed), moment]
    stage.unheard = EVERY_STREAM
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            stage.history.wait(
                lambda: (
                    bool(stage.history.count(Event.HEALED))
                    or process.poll() is not None
                ),
                "word of the program",
            )
            assert process.poll() is None, "it has ended by itself"
            time.sleep(stage.rng.random() * 0.03)
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ends(
    moment: str, *signals: signal.Signals, closed: bool = True
) -> Callable[[Stage], None]:
    """It gets these signals, and all of it ends with the right exit code."""

    def play(stage: Stage) -> None:
        with program(stage, stage.rng.randrange(1 << 30), moment) as process:
            stage.fault()
            for number in signals:
                process.send_signal(number)
                if number is not signals[-1]:
                    time.sleep(0.3 * stage.rng.random())
            code = process.wait(30)
            if code != CODES[signals[-1]]:
                stage.left.append(f"exit code {code}, not {CODES[signals[-1]]}")
        stage.history.wait(
            lambda: not processes_of(tempfile.gettempdir()), "end of all", 30
        )
        stage.ended_within(BOUND_S)
        made = stage.history.count(Event.MADE)
        closings = stage.history.count(Event.CLOSED)
        if closed and closings != made:
            stage.left.append(f"{closings} of {made} actors were closed")

    return play


KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT

CELLS = (
    Cell("F6", "m3", ends("m3", KILL), in_ci=True),
    Cell("F6", "m4", ends("m4", KILL)),
    Cell("F6", "m7", ends("m7", KILL)),
    Cell("F6", "many", ends("many", KILL)),
    Cell("F6", "m10", ends("m10", KILL, closed=False)),
    Cell("F6", "m11", ends("m11", KILL)),
    Cell("F20", "m3-term", ends("m3", TERM), in_ci=True),
    Cell("F20", "m4-int", ends("m4", INT)),
    Cell("F20", "m9-term", ends("m9", TERM)),
    Cell("F20", "m9-int", ends("m9", INT)),
    Cell("F20", "many-term", ends("many", TERM)),
    Cell("F20", "m10-term", ends("m10", TERM, closed=False)),
    Cell("F20", "m11-int", ends("m11", INT)),
    # A second one does not wait for what is to be closed.
    Cell("F20", "m3-int-int", ends("m3", INT, INT, closed=False)),
    Cell("F20", "m4-term-term", ends("m4", TERM, TERM, closed=False)),
)
