"""The program that mrun runs: how it is found, what signals it gets, how it ends.

Signals. Who presses Ctrl-C reaches mrun and the program alike, since both are in the
terminal's foreground group; what another process sends to mrun reaches mrun alone and
is passed on. The kernel says which of the two it was (``si_code``), so nothing arrives
twice. (A signal that a process sends to the whole group does: nobody can tell.) What
mrun's parent has set to be ignored, as nohup does, stays so.

If mrun is killed, the kernel kills the program: SIGKILL, for a program may ignore
everything else, and its cluster ends at the same moment.

What a cluster is, is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
NOT_FOUND = 127  # exit codes of a shell
NOT_EXECUTABLE = 126
_FROM_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
_PR_SET_PDEATHSIG = 1


class CannotRun(Exception):
    """There is no such program; ``code`` is mrun's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def find(name: str) -> str:
    """The file that is run for this word, as a shell would find it.

    Raises:
        CannotRun: there is none, or it cannot be run.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    if name and os.path.isdir(name):
        raise CannotRun(f"{name} is a directory, not a program", NOT_EXECUTABLE)
    if os.path.isfile(name):
        hint = ""
        if name.endswith(".py"):
            hint = f"; write: mrun python {name}"
        elif os.sep in name:
            hint = f"; write: chmod +x {name}"
        if os.sep in name or hint:
            raise CannotRun(f"{name} is not executable{hint}", NOT_EXECUTABLE)
        raise CannotRun(f"{name} is not on the PATH; write: mrun ./{name}", NOT_FOUND)
    raise CannotRun(f"{name}: no such program", NOT_FOUND)


class Signals:
    """Takes the signals of this process, on a thread, and says where each came from.

    Made before other threads are: they inherit that the signals are blocked, so that
    only this one gets them.

    Args:
        handle: called on the loop, with the number and whether a terminal sent it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[signal.Signals, bool], None],
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._numbers = [
            n for n in PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN
        ]
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)
        threading.Thread(target=self._take, name="mosaic signals", daemon=True).start()

    def _take(self) -> None:
        while True:
            number, from_terminal = _next(self._numbers)
            with contextlib.suppress(RuntimeError):  # the loop is closed: all is done
                self._loop.call_soon_threadsafe(self._handle, number, from_terminal)


def _next(numbers: Sequence[signal.Signals]) -> tuple[signal.Signals, bool]:
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(numbers)
        # Positive: from the kernel, which speaks for the terminal.
        return signal.Signals(info.si_signo), info.si_code > 0
    number = signal.Signals(signal.sigwait(numbers))
    # macOS does not say. Mostly it is the keyboard, if there is one.
    return number, number in _FROM_KEYBOARD and os.isatty(0)


class Program:
    """A running program."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        mask: set[signal.Signals | int] | set[signal.Signals],
    ) -> Program:
        """Start it, on the main thread: with that thread's end it is killed.

        Args:
            command: the arguments, the program's name first; no shell sees them.
            environment: all of it.
            mask: the signals that are blocked in it.

        Raises:
            CannotRun: it cannot be started after all.
        """
        try:
            return cls(
                subprocess.Popen(
                    list(command),
                    executable=find(command[0]),
                    env=dict(environment),
                    preexec_fn=prepared(mask, signal.SIGKILL),
                )
            )
        except OSError as error:
            name = command[0]
            if isinstance(error, FileNotFoundError):
                why = f"{name} names an interpreter (#!) that is not there"
                raise CannotRun(why, NOT_FOUND) from None
            why = f"{name} cannot be run: {os.strerror(error.errno or 0)}"
            raise CannotRun(why, NOT_EXECUTABLE) from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end: its exit code, 128 + N if signal N ended it."""
        code = await asyncio.to_thread(self._process.wait)
        return code if code >= 0 else 128 - code


def prepared(
    mask: set[signal.Signals | int] | set[signal.Signals], number: signal.Signals
) -> Callable[[], None]:
    """What a child does before it becomes another program.

    It needs no lock that a thread of ours could hold. For a child that is started on
    the main thread.

    Args:
        mask: the signals that are blocked in it.
        number: the signal that it gets when that thread ends, as in the death of mrun.
    """
    prctl = _load_prctl()
    parent = os.getpid()

    def prepare() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != parent:  # it died before we had asked
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return prepare


def _load_prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # not above: the REPL and status do not need it

    prctl: Callable[..., int] = ctypes.CDLL(None).prctl
    return prctl
