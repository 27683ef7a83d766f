"""What the workers of all hosts print and log, whole, in one directory of the head's.

A file for each worker, to which is added; ``logs=`` and ``mrun --logs`` name the
directory. mrun keeps there too what the hosts themselves say. What is shown to people
meanwhile is in ``output``.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TextIO

from ..ids import short
from ..text import printable

logger = logging.getLogger(__name__)

_OTHER = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_CHARACTERS = 100


class Logs:
    """The files of one head.

    Args:
        directory: that is there already.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._files: dict[str, TextIO] = {}
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
        try:
            file = self._files.get(name)
            if file is None:
                path = os.path.join(self._directory, f"{name}.log")
                file = self._files[name] = open(  # noqa: SIM115 -- close() does
                    path, "a", encoding="utf-8", errors="backslashreplace"
                )
            file.write(text)
            file.flush()
        except OSError as error:  # what the program does goes on
            self._is_broken = True
            logger.warning("nothing more is written to logs=: %s", error)

    def keep(self, uid: str, label: str, text: str) -> None:
        """Add what a runtime has sent, with the tessera that printed it on each line.

        Args:
            uid: of the worker, or of its node, which passes on what comes past Python.
            label: such as ``w0:1 Solver#3``.
            text: whole lines.
        """
        worker, _, what = printable(label).partition(" ")
        if uid.startswith("worker"):
            worker = short(uid)
        if what:
            lines = text.removesuffix("\n").split("\n")
            text = "".join(f"{what} | {line}\n" for line in lines)
        self.add(worker, text)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
