"""One step of an engine, which starts nodes on one or several hosts, as a process here.

It gets the key on its standard input; whose line is whose is told to a listener, which
knows what the lines mean. Its end is here too: of it, and of what it has started here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from typing import TYPE_CHECKING, Protocol

from .engines import slurm
from .program import prepared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from .engines.allocation import Step

ENDED_TIMEOUT_S = 5.0  # from the end of the cluster to that of its steps
TERMINATE_TIMEOUT_S = 3.0
# srun may say that a process has ended before it passes on what that has said.
_LAST_WORDS_S = 0.3
_LINES = 40  # that are kept for the cause of its end
_LONGEST = 16 << 10  # bytes of one line


class Listener(Protocol):
    """Who is told of the hosts of a step."""

    def said(self, name: str, line: str, *, is_error: bool) -> None:
        """A host has said something."""

    def ended(self, name: str, status: int, lines: list[str]) -> None:
        """The command for a host has ended, or its own part of it."""


class RunningStep:
    """See the module.

    Args:
        step: its command and its hosts.
        listener: who is told.
    """

    def __init__(self, step: Step, listener: Listener) -> None:
        self.step = step
        self.task: asyncio.Task[None] | None = None
        self._listener = listener
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=_LINES)  # of nobody in particular
        self._ended: set[str] = set()  # hosts of which it has been said
        self._output = slurm.Output() if step.is_labelled else None

    async def start(
        self,
        key: bytes,
        environ: Mapping[str, str],
        mask: set[signal.Signals | int] | set[signal.Signals],
    ) -> None:
        """Start it.

        Args:
            key: of the cluster, as it is read there.
            environ: of the command.
            mask: signals that are blocked in it.
        """
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.step.command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=dict(environ),
                # Ctrl-C at a terminal is for the program to answer.
                start_new_session=True,
                preexec_fn=prepared(mask, signal.SIGTERM),
            )
        except OSError as error:
            why = os.strerror(error.errno or 0)
            text = f"mrun: {self.step.command[0]} cannot be run here: {why}"
            for name in self.step.hosts:
                self._listener.ended(name, 1, [text])
            return
        self.task = asyncio.get_running_loop().create_task(self._follow(key))

    async def _follow(self, key: bytes) -> None:
        """To its end, which frees its pipes."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(key)
        process.stdin.close()
        await asyncio.gather(
            self._read(process.stdout, is_error=False),
            self._read(process.stderr, is_error=True),
        )
        status = await process.wait()
        codes = {} if self._output is None else self._output.codes
        for name in self.step.hosts:
            self._listener.ended(name, codes.get(name, status), list(self._lines))

    async def _read(self, stream: asyncio.StreamReader, *, is_error: bool) -> None:
        loop = asyncio.get_running_loop()
        async for line in _lines(stream):
            if self._output is None:
                self._listener.said(self.step.hosts[0], line, is_error=is_error)
                continue
            said = self._output.line(line)
            for name in self._output.codes.keys() - self._ended:
                self._ended.add(name)
                loop.call_later(_LAST_WORDS_S, self._host_ended, name)
            if said is not None and said[0]:
                self._listener.said(*said, is_error=is_error)
            elif said is not None:
                self._lines.append(said[1])

    def _host_ended(self, name: str) -> None:
        if self._output is not None and name in self.step.hosts:
            self._listener.ended(name, self._output.codes[name], [])

    def end(self) -> None:
        """Terminate it, and kill soon after what does not heed that."""
        self.terminate()
        asyncio.get_running_loop().call_later(TERMINATE_TIMEOUT_S, self.kill)

    def terminate(self) -> None:
        """srun and qrsh end what they have started, ssh closes its connection."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """With what it has started here, such as a ProxyCommand of ssh.

        That may have outlived it, and has our pipes then. Its group keeps its number as
        long as anybody is in it.
        """
        if self._process is not None and self.task is not None and not self.task.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


async def all_ended(steps: Iterable[RunningStep]) -> None:
    """Wait for the steps of a cluster that has stopped; end those that stay."""
    left: list[asyncio.Task[None]] = []
    for limit_s, end in (
        (ENDED_TIMEOUT_S, RunningStep.terminate),
        (TERMINATE_TIMEOUT_S, RunningStep.kill),
        (TERMINATE_TIMEOUT_S, RunningStep.kill),
    ):
        left = [step.task for step in steps if step.task]
        if left:
            await asyncio.wait(left, timeout=limit_s)
        for step in steps:
            end(step)
    for task in left:
        task.cancel()  # something that is no child of ours has its pipe open


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Whole lines; one that is too long in pieces."""
    rest = b""
    while data := await stream.read(_LONGEST):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if len(rest) > _LONGEST:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace")
