"""What the workers of all hosts print and log, whole, in one directory of the head's.

A file for each worker, to which is added; ``logs=`` and ``mrun --logs`` name the
directory. One that is full becomes ``NAME.1.log``, in the place of the one that was
that before, so that each worker has at most two. mrun keeps there too what the hosts
themselves say. What is shown to people meanwhile is in ``output``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import BinaryIO

from ..ids import short
from ..text import printable

logger = logging.getLogger(__name__)

_OTHER = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_CHARACTERS = 100


class Logs:
    """The files of one head.

    Args:
        directory: that is there already.
        limit_bytes: after which a file is full.
    """

    def __init__(self, directory: str, limit_bytes: int) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._files: dict[str, BinaryIO] = {}
        self._is_broken = False

    def add(self, who: str, text: str) -> None:
        """Add whole lines to a file.

        Args:
            who: such as ``w0:1``, whose file is ``w0-1.log``, or a host.
            text: what was printed.
        """
        if self._is_broken:
            return
        name = _OTHER.sub("-", who)[:_NAME_CHARACTERS].lstrip(".")
        data = text.encode(errors="backslashreplace")
        try:
            file = self._files.get(name) or self._open(name)
            if file.tell() and file.tell() + len(data) > self._limit_bytes:
                file = self._turn(name, file)
            file.write(data)
            file.flush()
        except OSError as error:  # what the program does goes on
            self._is_broken = True
            logger.warning("nothing more is written to logs=: %s", error)

    def _open(self, name: str) -> BinaryIO:
        path = os.path.join(self._directory, f"{name}.log")
        file = self._files[name] = open(path, "ab")  # noqa: SIM115 -- close() does
        return file

    def _turn(self, name: str, full: BinaryIO) -> BinaryIO:
        """The next file, in the place of one that is full."""
        is_other = True
        with contextlib.suppress(FileNotFoundError):
            is_other = not os.path.samestat(os.fstat(full.fileno()), os.stat(full.name))
        full.close()
        if not is_other:  # else another program, with the same directory, has done so
            os.replace(full.name, os.path.join(self._directory, f"{name}.1.log"))
        return self._open(name)

    def keep(self, uid: str, label: str, text: str) -> None:
        """Add what a runtime has sent, with the tessera that printed it on each line.

        Args:
            uid: of the worker, or of its node, which passes on what comes past Python.
            label: such as ``w0:1 Solver#3``.
            text: whole lines.
        """
        worker, _, what = printable(label).partition(" ")
        if uid.startswith(("worker", "helper")):
            worker = short(uid)
        if what:
            lines = text.removesuffix("\n").split("\n")
            text = "".join(f"{what} | {line}\n" for line in lines)
        self.add(worker, text)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
