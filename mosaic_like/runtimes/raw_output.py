"""What a worker's process prints past Python: C and Fortran code, and other programs.

``sys.stdout`` of a worker is a LineStream (``output``); the descriptors 1 and 2 below
it are pipes whose other ends are here, in its node. A thread of the worker could not
read them: C code that prints a lot may hold the GIL until somebody has read it. Lines
go to the head as those of Python do, with the name of the tessera if the journal says
it is only one. They need not be there before the call has ended.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

from ..comms import messages as wire
from ..ids import short
from . import journal
from .output import MESSAGE_CHARACTERS, messages_of

if TYPE_CHECKING:
    import asyncio

    from .base import Base
    from .peer import Peer

_READ: Final = 64 << 10  # bytes: what a pipe holds
_LONGEST: Final = 64 << 10  # bytes of a line that does not end
# So much may be on its way to a head. Past it the worker waits, as one that prints in
# Python does, but not for ever: a head that stands still must not stop C code.
_WAITING_BYTES: Final = 1 << 20
_AGAIN_S: Final = 0.01
_PATIENCE_S: Final = 10.0


class RawOutput:
    """The output of one worker.

    Args:
        node: that has started it.
        uid: of the worker.
        directory: in which its journal is.
    """

    def __init__(self, node: Base, uid: str, directory: str) -> None:
        self.pid = 0  # of the worker, when it is known
        self._node = node
        self._uid = uid
        self._directory = directory
        self._pipes: list[_Pipe] = []

    def pipes(self) -> tuple[int, int]:
        """The ends for the worker, which the caller closes: stdout, stderr.

        Raises:
            OSError: this process may open no more; ``close`` this.
        """
        ends: list[int] = []
        try:
            for stream in (1, 2):
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                ends.append(theirs)
                os.set_blocking(ours, False)
                self._pipes.append(_Pipe(self, self._node.loop, ours, stream))
        except OSError:  # no more descriptors
            for end in ends:
                os.close(end)
            raise
        return ends[0], ends[1]

    def ended(self) -> None:
        """The worker has: what is left in the pipes is all, but of its own children."""
        for pipe in self._pipes:
            pipe.take()
            pipe.finish()

    def close(self) -> None:
        """Nothing is shown any more."""
        for pipe in self._pipes:
            pipe.close()

    def head(self) -> Peer | None:
        """Who shows it."""
        heads = self._node.of_kind("head")
        return self._node.outbox(heads[0].incarnation) if heads else None

    def show(self, stream: int, text: str) -> None:
        """Send whole lines."""
        label = self._label()
        head = self.head()
        if head is None or self._node.stopping:
            # Nobody else would see why a worker has not started, or how it ended.
            lines = "".join(f"{label} | {line}\n" for line in text.splitlines())
            with contextlib.suppress(OSError):
                os.write(stream, lines.encode("utf-8", "backslashreplace"))
            return
        for part in messages_of(text):
            head.send(wire.Output(stream, label, part))
            if len(part) > MESSAGE_CHARACTERS // 2:
                head.flush()

    def _label(self) -> str:
        tessera = journal.printing(self._directory, self.pid) if self.pid else ""
        return f"{short(self._uid)} {tessera}".rstrip()


class _Pipe:
    """One of its two streams."""

    def __init__(
        self,
        output: RawOutput,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        stream: int,
    ) -> None:
        self._output = output
        self._loop = loop
        self._fd = fd
        self._stream = stream
        self._rest = b""
        self._paused_s = 0.0  # since when; 0: it is read
        self._lost = 0  # bytes that were not shown
        loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        if self._is_held_up():
            self._loop.remove_reader(self._fd)
            self._loop.call_later(_AGAIN_S, self._again)
            return
        self.take(_READ)

    def _is_held_up(self) -> bool:
        """The head does not take what is on its way to it, and there is patience."""
        head = self._output.head()
        if head is None or head.link.unacknowledged_bytes <= _WAITING_BYTES:
            self._paused_s = 0.0
            return False
        now_s = time.monotonic()
        self._paused_s = self._paused_s or now_s
        return now_s - self._paused_s < _PATIENCE_S

    def _again(self) -> None:
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def take(self, most: int = 1 << 20) -> None:
        """Read what is there."""
        while self._fd >= 0 and most > 0:
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                return
            if not data:
                self.finish()
                self.close()
                return
            most -= len(data)
            self._add(data)

    def _add(self, data: bytes) -> None:
        if self._paused_s:  # the patience has ended
            self._lost += len(data)
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            text = f"({lost} bytes are left out: the head did not take them)\n"
            self._output.show(self._stream, text)
        whole, end, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) > _LONGEST:
            whole, end, rest = whole + end + rest, b"\n", b""
        self._rest = rest
        if end:
            self._output.show(self._stream, _text(whole))

    def finish(self) -> None:
        """The line that has not ended."""
        rest, self._rest = self._rest, b""
        if rest:
            self._output.show(self._stream, _text(rest))

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def _text(data: bytes) -> str:
    """Whole lines; of one that was written over, what can still be read.

    >>> _text(b"a\\r\\n 10 %\\r 20 %\\xff")
    'a\\n 20 %\\\\xff\\n'
    """
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    return "".join(line.rstrip("\r").rpartition("\r")[2] + "\n" for line in lines)
