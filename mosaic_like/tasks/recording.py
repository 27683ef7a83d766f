"""``mosaic.record``: one line of JSON for each task that has ended.

A record is written when its task ends, and flushed, so that a program that dies leaves
what it had done. What is in it is ``TaskInfo``; who collects it is ``runtimes``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from .. import session
from ..errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)


class Recorder:
    """Where records go.

    Args:
        target: a path, to which lines are added, or a function of each record.
    """

    def __init__(
        self, target: str | os.PathLike[str] | Callable[[dict[str, Any]], Any]
    ) -> None:
        self._call: Callable[[dict[str, Any]], Any] | None = None
        self._file: Any = None
        self.path = ""
        if callable(target):
            self._call = target
            return
        if not isinstance(target, str | os.PathLike):
            raise TypeError(
                f"record({target!r}): expected a path, or a function of each record"
            )
        self.path = os.fspath(target)

    def open(self) -> None:
        """Open the file; OSError if it cannot be written."""
        if self.path and self._file is None:
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 -- see close

    def write(self, record: dict[str, Any]) -> None:
        """Add a record; what goes wrong is logged once, and ends the recording."""
        try:
            if self._call is not None:
                self._call(record)
            elif self.path:
                self.open()
                self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
                self._file.flush()
        except Exception:
            logger.exception("record: %s; no more is recorded there", self.path or "")
            self._call, self.path = None, ""
            self.close()

    def write_line(self, text: str) -> None:
        """Add a record that another process of the cluster has made.

        Raises:
            ProtocolError: it is none.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"a record that is no JSON: {error}") from error
        if not isinstance(record, dict):
            raise ProtocolError("a record that is no object")
        self.write(record)

    def close(self) -> None:
        """Close the file; it is opened again by the next record."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


class Forwarder(Recorder):
    """Sends the records of a worker to who writes them all.

    Args:
        send: is called with each, as a line.
    """

    def __init__(self, send: Callable[[str], Any]) -> None:
        super().__init__(lambda record: send(json.dumps(record)))


@contextlib.contextmanager
def record(
    target: str | os.PathLike[str] | Callable[[dict[str, Any]], Any], /
) -> Iterator[None]:
    """Record the tasks that this process submits inside the block.

    Function tasks and calls on tesserae: each gives a record when it has ended, with
    the fields of ``TaskInfo``; one that has not ended with the block gives its record
    there, as it is then. ``mrun --record FILE`` and ``init(record=FILE)`` do so for a
    whole program, with what is submitted inside its tasks.

    Args:
        target: the path of a file, to which each record is added as one line of JSON,
            flushed; or a function that is called with each record, a dict, on the
            runtime's loop.

    Raises:
        OSError: the file cannot be written.
        TypeError: the target is neither.
        RuntimeError: there is no runtime whose tasks could be recorded.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def half(x): return x / 2
    >>> async def main():
    ...     found = []
    ...     with mosaic.record(found.append):
    ...         await half.map([2, 4])
    ...     return [(record["name"], record["state"]) for record in found]
    >>> mosaic.run(main, num_workers=1)
    [('half', 'done'), ('half', 'done')]
    """
    recorder = Recorder(target)
    observing = session.current().observing
    recorder.open()
    observing.start(recorder)
    try:
        yield
    finally:
        observing.stop(recorder)
        recorder.close()
