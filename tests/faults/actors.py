"""What lives in the workers of a run: actors, a relay, and what looks at tables.

Actors note what they start and end; what they are told to do in between is what a cell
is about. Nothing here knows which calls there are.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from history import AsAsked, Event, Outcome, Writer, outcome_of

import mosaic_like as mosaic
from mosaic_like import session

if TYPE_CHECKING:
    from collections.abc import Collection

HOLD_S = 30.0  # that a held method waits for its gate


def tables(runtime: Any) -> dict[str, int]:
    """The sizes of the tables that grow with calls and tesserae."""
    worker, caller = runtime.worker, runtime.caller
    return {
        "tesserae": sum(not _is_probe(t) for t in list(worker.tesserae.values())),
        "tasks": sum(not _is_probe(t.tessera) for t in list(worker.tasks.values())),
        "holders": len(worker.holders.shared),
        "calls": len(caller.calls),
        "awaited": len(caller.asking.awaited),
        "fetching": len(caller.asking.fetching),
        "streams": len(runtime.streams),
    }


def _is_probe(tessera: Any) -> bool:
    """Those that look come and go while they look."""
    name: str = tessera.options.name
    return name.startswith(Probe.__name__)


class Probe:
    """Looks at the worker that it lives in."""

    def tables(self) -> dict[str, int]:
        gc.collect()
        return tables(session.current())

    def closed(self) -> int:
        """How many light ones were closed here."""
        return Light.closed

    def shares(self) -> bool:
        """It knows its warehouse, which counts what is shared."""
        return bool(session.current().sharing.home)

    def stall_after(self, seconds: float) -> None:
        """Scale the time after which a link takes a batch for lost."""
        for peer in session.current().peers.by_token.values():
            peer.link.stall_s = seconds

    async def shift_clock(self, seconds: float) -> None:
        """Let ``time.time`` jump, as a clock that somebody sets does.

        A coroutine, for a plain method may be running.
        """
        real = time.time
        time.time = lambda: real() + seconds


class Light:
    """One of very many: their worker counts how many were closed."""

    closed = 0

    def __init__(self, held: Any = None) -> None:
        self._held = held

    def touch(self) -> None:
        pass

    def __close__(self) -> None:
        Light.closed += 1


class Actor:
    """Notes what it starts and ends."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._log = Writer(folder)
        self._log.note(Event.MADE)
        self.kept: list[Any] = []

    def run(
        self, stream: int, number: int, do: str = "", size: int = 0, _: Any = None
    ) -> Any:
        """A plain method.

        Args:
            stream: of the call.
            number: of the call.
            do: what is done between start and end: nothing, the name of a method of
                this class, or ``gate`` and the name of a file to wait for.
            size: bytes of the result.
        """
        self._log.note(Event.STARTED, stream, number)
        what, _, argument = do.partition(" ")
        if what == "gate":
            self._hold(argument)
        elif what:
            getattr(self, what)(argument)
        self._log.note(Event.ENDED, stream, number)
        # An array, for which there is shared memory.
        return np.ones(size, "u1") if size else number

    async def arun(self, stream: int, number: int, gate: str = "") -> int:
        """A coroutine."""
        self._log.note(Event.STARTED, stream, number)
        if gate:
            async with asyncio.timeout(HOLD_S):
                while not (self._folder / gate).exists():  # noqa: ASYNC110 -- a file
                    await asyncio.sleep(0.002)
        self._log.note(Event.ENDED, stream, number)
        return number

    async def hold_loop(self, stream: int, number: int, gate: str) -> None:
        """A coroutine that lets no other run."""
        self._log.note(Event.STARTED, stream, number)
        self._hold(gate)
        self._log.note(Event.ENDED, stream, number)

    def _hold(self, gate: str) -> None:
        deadline_s = time.monotonic() + HOLD_S
        while not (self._folder / gate).exists():
            if time.monotonic() > deadline_s:
                raise TimeoutError(gate)
            time.sleep(0.002)

    def crash(self, _: str) -> None:
        """Read where nothing is."""
        ctypes.string_at(0)

    def leave(self, status: str) -> None:
        os._exit(int(status))

    def sys_exit(self, status: str) -> None:
        sys.exit(int(status))

    def abort(self, _: str) -> None:
        os.abort()

    def eat(self, _: str) -> None:
        """Take memory without end."""
        eaten = []
        while True:
            eaten.append(bytearray(8 << 20))

    def hold_interpreter(self, seconds: str) -> None:
        """Sleep in C without letting go of the lock."""
        ctypes.PyDLL(None).usleep(int(1e6 * float(seconds)))

    def fork(self, _: str) -> None:
        """Leave a child that goes on with the method, as a careless one does."""
        if os.fork() == 0:
            time.sleep(0.1)

    def close_descriptors(self, _: str) -> None:
        os.closerange(3, 4096)

    def signal_group(self, _: str) -> None:
        os.kill(0, signal.SIGTERM)

    def ignore_sigterm(self, _: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def start_process(self, _: str) -> None:
        """Where none may be started."""
        try:
            subprocess.run(["true"], check=True)
        except OSError as error:
            raise AsAsked from error

    def fill_descriptors(self, _: str) -> None:
        """Open what may be opened, and one too many."""
        opened = []
        try:
            while True:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            raise AsAsked from error
        finally:
            for fd in opened:
                os.close(fd)

    def nap(self, seconds: str) -> None:
        time.sleep(float(seconds))

    def keep(self, stream: int, number: int, value: Any) -> None:
        """Hold something for as long as this lives."""
        self._log.note(Event.STARTED, stream, number)
        self.kept.append(value)
        self._log.note(Event.ENDED, stream, number)

    def drop(self, stream: int, number: int) -> None:
        self._log.note(Event.STARTED, stream, number)
        self.kept.clear()
        self._log.note(Event.ENDED, stream, number)

    def pid(self) -> int:
        return os.getpid()

    def __close__(self) -> None:
        self._log.note(Event.CLOSED)


@mosaic.tessera(max_restarts=1)
class Ledger(Actor):
    """Has a state that takes a while to write down."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.total = 0

    def add(self, stream: int, number: int) -> int:
        self._log.note(Event.STARTED, stream, number)
        self.total += 1
        self._log.note(Event.ENDED, stream, number)
        return self.total

    def __checkpoint__(self) -> tuple[int, bytes]:
        return self.total, bytes(32 << 20)

    def __restore__(self, state: tuple[int, bytes]) -> None:
        self.total = state[0]


class Relay(Actor):
    """Calls others from inside a worker, as one more caller with streams of its own."""

    async def relay(self, stream: int, count: int, other: Any) -> None:
        """Make calls, note how each ends, and raise none of their errors."""
        tasks = []
        for number in range(count):
            self._log.note(Event.SUBMITTED, stream, number)
            tasks.append(other.run(stream, number))
        await asyncio.gather(
            *(watch(task, self._log, stream, n) for n, task in enumerate(tasks))
        )


async def watch(
    task: Any,
    log: Writer,
    stream: int,
    number: int,
    expect: Collection[Outcome] = tuple(Outcome),
) -> None:
    """Note how a call ends, in the moment that its caller is told."""
    try:
        await task.result()
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and not task.done():
            raise  # who watches is cancelled, not the call
        outcome = outcome_of(error)
        log.note(Event.OUTCOME, stream, number, outcome)
        if outcome not in expect:
            print(f"call {number} of stream {stream}: {error!r}", file=sys.stderr)
    else:
        log.note(Event.OUTCOME, stream, number, Outcome.VALUE)
