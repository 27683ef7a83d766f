"""What user code prints in a worker, as whole lines on their way to the head.

``sys.stdout`` and ``sys.stderr`` of a worker are LineStreams. A line is passed on
when it ends, and what is left of one when the call ends, so that it is at the head
before the call's result. ``Printed`` keeps the lines until the loop sends them and
``show`` writes them at the head. Who gets them is the worker's to know.
"""

from __future__ import annotations

import codecs
import io
import logging
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TextIO

from ..text import for_terminal, printable
from .port import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..core.task import Task

logger = logging.getLogger(__name__)
_LOGGER = __name__.partition(".")[0]  # that of mosaic.logger()

MESSAGE = 0  # where the number of a stream stands: it is no line
LOGGED = 3  # a stream whose lines the head logs
RECORDED = 4  # one whose lines are records of calls that a worker has made
_LONGEST = 64 << 10  # characters of a line that does not end
_BAR_S = 1.0  # a line that is written over again and again is shown so often
MESSAGE_CHARACTERS = 64 << 10
# So much may wait to be sent; then printing waits, but never for longer than this.
_WAITING_CHARACTERS = 4 << 20
_PATIENCE_S = 10.0


class LineStream(io.TextIOBase):
    """A text stream whose lines go somewhere.

    What a call prints is joined to lines by call, what other threads print by thread.

    Args:
        write_lines: called from any thread with the task that printed, or None, and
            text that ends with a line's end.
        fileno: of the process's own stream, for who asks.
        clock: seconds, for lines that are written over.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True
    mode = "w"

    def __init__(
        self,
        write_lines: Callable[[Task | None, str], None],
        fileno: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._write_lines = write_lines
        self._fileno = fileno
        self._clock = clock
        # What is printed inside a garbage collection may come while it is held.
        self._lock = threading.RLock()
        self.parts: dict[int, str] = {}  # by call or thread: the line so far
        self._bars: dict[int, float] = {}  # when a line that is written over was shown
        self.pending = False  # some line has not ended: asked after each call
        self.buffer = _Bytes(self)

    @property
    def name(self) -> str:
        return "<stdout>" if self._fileno == 1 else "<stderr>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fileno

    def isatty(self) -> bool:
        return False

    def reconfigure(self, **_: Any) -> None:
        """Lines always go when they end, as UTF-8."""

    def close(self) -> None:
        """The streams of a worker stay open: others print there too."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() takes a str, not {type(text).__name__}")
        task = CURRENT.get()
        key = key_of(task)
        with self._lock:
            whole = self.parts.pop(key, "") + text
            if "\r" in whole:
                done, rest = self._written_over(key, whole)
            else:
                done, end, rest = whole.rpartition("\n")
                done += end
            if len(rest) > _LONGEST:
                done, rest = f"{done}{rest}\n", ""
            if rest:
                self.parts[key] = rest
            self.pending = bool(self.parts)
        if done:
            self._write_lines(task, done)
        return len(text)

    def _written_over(self, key: int, whole: str) -> tuple[str, str]:
        """Of a line that was written over, only what can still be read.

        A progress bar may go on for long: now and then its state is a line.
        """
        *lines, rest = whole.split("\n")
        done = "".join(line.rstrip("\r").rpartition("\r")[2] + "\n" for line in lines)
        if lines:
            self._bars.pop(key, None)
        before, back, rest = rest.rpartition("\r")
        if not back:
            return done, rest
        shown = before.rstrip("\r").rpartition("\r")[2]
        if not rest:
            # Perhaps the first half of "\r\n", or the bar writes it at the end.
            rest = shown + "\r"
        now_s = self._clock()
        if shown and now_s - self._bars.setdefault(key, now_s) >= _BAR_S:
            self._bars[key] = now_s
            done += shown + "\n"
        return done, rest

    def flush(self) -> None:
        """Lines go when they end: half a line of one would stand in another's."""

    def finish(self, task: Task | None) -> None:
        """The call has ended: its last line too."""
        key = key_of(task)
        with self._lock:
            rest = self.parts.pop(key, "").rstrip("\r")
            self._bars.pop(key, None)
            self.pending = bool(self.parts)
        if rest:
            self._write_lines(task, rest + "\n")

    def finish_all(self) -> None:
        """All ends: also the lines of threads."""
        with self._lock:
            parts = dict(self.parts)
            self.parts.clear()
            self.pending = False
        for rest in parts.values():
            self._write_lines(None, rest.rstrip("\r") + "\n")


class _Bytes(io.BufferedIOBase):
    """``sys.stdout.buffer``: bytes that are text."""

    def __init__(self, stream: LineStream) -> None:
        super().__init__()
        self._stream = stream
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        """It stays open, as the stream does."""

    def write(self, data: Any) -> int:
        view = memoryview(data)
        key = key_of(CURRENT.get())
        decoder = self._decoders.pop(key, None)
        if decoder is None:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(view.tobytes())
        if decoder.getstate()[0]:
            self._decoders[key] = decoder  # half of a character
        if text:
            self._stream.write(text)
        return view.nbytes


def key_of(task: Task | None) -> int:
    """Whose line it is: a call's, or a thread's."""
    if task is None:
        return -threading.get_ident()
    return task.uid or -id(task)


class Printed:
    """Lines on their way from the threads that print to the loop that sends them."""

    def __init__(self) -> None:
        self.lines: deque[tuple[int, Task | None, Any]] = deque()
        self._size = 0
        self._changed = threading.Condition(threading.RLock())

    def __bool__(self) -> bool:
        return bool(self.lines)

    def put(self, stream: int, task: Task | None, text: str) -> None:
        """Add lines; from any thread."""
        with self._changed:
            self.lines.append((stream, task, text))
            self._size += len(text)

    def put_message(self, task: Task, message: Any) -> None:
        """Tell the caller of a task something in between; from any thread."""
        with self._changed:
            self.lines.append((MESSAGE, task, message))

    def wait(self) -> None:
        """Wait while too much is on its way; not on the loop's thread."""
        if self._size > _WAITING_CHARACTERS:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._size <= _WAITING_CHARACTERS, _PATIENCE_S
                )

    def take(self) -> tuple[int, Task | None, Any]:
        """The next lines, joined as far as one call printed them to one stream.

        Or, instead of a stream, MESSAGE, and the message.
        """
        with self._changed:
            lines = self.lines
            stream, task, text = lines.popleft()
            if stream == MESSAGE:
                return stream, task, text
            parts = [text]
            size = len(text)
            while lines and size < MESSAGE_CHARACTERS:
                if lines[0][0] != stream or lines[0][1] is not task:
                    break
                more = lines.popleft()[2]
                parts.append(more)
                size += len(more)
            before, self._size = self._size, self._size - size
            if before > _WAITING_CHARACTERS:
                self._changed.notify_all()
        return stream, task, "".join(parts)


def messages_of(text: str) -> Iterator[str]:
    """Lines in parts that are not too large, and that UTF-8 can hold."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    start = 0
    while len(text) - start > MESSAGE_CHARACTERS:
        end = text.rfind("\n", start, start + MESSAGE_CHARACTERS)
        if end < 0:
            end = text.find("\n", start)
        yield text[start : end + 1]
        start = end + 1
    if start < len(text):
        yield text[start:]


def show(number: int, label: str, text: str) -> None:
    """Write lines at the head, to what is its stream now.

    Args:
        number: 1 standard output, 2 standard error; LOGGED: none, but a log.
        label: who printed it.
        text: whole lines.
    """
    if number == LOGGED:
        for line in text.removesuffix("\n").split("\n"):
            # Nobody knows here whether it goes to a terminal.
            shown = for_terminal(line)
            logging.getLogger(_LOGGER).info("%s: %s", printable(label), shown)
        return
    stream: TextIO | None = sys.stdout if number == 1 else sys.stderr
    if stream is None:
        return
    try:
        lines = text.removesuffix("\n").split("\n")
        if stream.isatty():
            lines = [for_terminal(line) for line in lines]
        label = printable(label)
        whole = "".join(f"{label} | {line}\n" for line in lines)
        try:
            stream.write(whole)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(whole.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        logger.debug("output of %s is lost: the stream is closed", label)
